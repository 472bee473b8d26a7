"""Runs to be killed: small, in a process of their own, and what is left of them afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.support.parts import PLAIN

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *PLAIN,
    "trainer.device=cpu", "data.workers=0", "data.validation_clips=2", "data.batch_size=2", "backbone.channels=8",
    "backbone.resolution=16", "model.quantizer.codebook_size=16", "discriminator.channels=4", "logger=none",
    "data.videos=4", "data.video_frames=8", "trainer.log_every=1", "loss.discriminator_start=3",
)  # fmt: skip


def start(
    folder: Path,
    *overrides: str,
    script: Path | None = None,
    processes: int = 1,
    small: Sequence[str] = SMALL,
    **environment: str,
) -> subprocess.Popen[str]:
    """A training process, or the `torchrun` of several; `script` takes the place of `train.py`."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else [])]
    command += [str(script or ROOT / "train.py"), *small, f"run_dir={folder}", *overrides]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str, str]:
    """Exit code, output and error of a process that ends by itself."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def train(folder: Path, *overrides: str, script: Path | None = None, processes: int = 1, **environment: str) -> str:
    """Train to the end; returns what was printed."""
    code, out, err = finish(start(folder, *overrides, script=script, processes=processes, **environment))
    assert code == 0, err
    return out + err


def digest(folder: Path) -> str:
    """SHA-256 over every tensor and number of the newest checkpoint: networks, codebook, optimizers.

    Without what the clock has a part in, as in advice on how long training waits for data.
    """
    state = torch.load(folder / "checkpoints" / "latest" / "state.pt", weights_only=True)
    found = hashlib.sha256()
    for name, value in flat(
        {k: v for k, v in state.items() if k not in ("provenance", "loggers", "progress", "advice")}
    ):
        content = value.reshape(-1).view(torch.uint8).numpy().tobytes() if isinstance(value, torch.Tensor) else value
        found.update(name.encode())
        found.update(content if isinstance(content, bytes) else repr(content).encode())
    return found.hexdigest()


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts and lists, in the order of their keys."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from flat(value[key], f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from flat(part, f"{path}.{number}")
    else:
        yield path, value


def rows(folder: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`, without what the clock says."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time" and not k.startswith("speed/")} for row in found]


def code_use(folder: Path) -> str:
    """The rows of `codebook.jsonl`."""
    return (folder / "codebook.jsonl").read_text()


def saved_steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


def unfinished(folder: Path) -> list[Path]:
    """What a save has left behind."""
    return list((folder / "checkpoints").glob(".unfinished*"))
