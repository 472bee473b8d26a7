"""Parts of a user's own, from a folder outside the package: they train, resume exactly, are measured, make tokens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vqgan
from tests.support.parts import PLAIN
from tests.support.tokenizers import write_videos
from vqgan import tokens
from vqgan.errors import CheckpointError
from vqgan.runs.checkpoint import read

ROOT = Path(__file__).resolve().parents[2]
PARTS = ROOT / "tests" / "support" / "outside"
CLI = "from vqgan.commands import main; main()"
SMALL = [
    *PLAIN, "logger=none", "trainer.device=cpu", "trainer.log_every=1", "trainer.checkpoint_every=2",
    "data.validation_clips=2", "data.batch_size=2", "data.workers=0", "backbone.resolution=16",
    "loss.discriminator_start=0",
    "trainer.discriminator_every=1",
]  # fmt: skip
EVERYTHING = [
    "model=signs", "backbone=patches", "discriminator=critic", "+loss/terms=drift", "data=arrays",
    "data.val_fraction=0.4",
]  # fmt: skip
TWO_CODES = ["model=pairs", "backbone.channels=8"]


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """The folder of parts, and `arrays` beside it; what this process imports from there is forgotten afterwards."""
    rng = np.random.default_rng(0)
    (tmp_path / "arrays").mkdir()
    for number in range(6):
        np.save(tmp_path / "arrays" / f"{number}.npy", rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    shutil.copytree(PARTS, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    path = list(sys.path)
    yield tmp_path / "mine"
    sys.path[:] = path
    for name in [name for name, module in sys.modules.items() if "/mine/" in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def command(folder: Path, *arguments: str) -> str:
    """Run one from somewhere else; returns what it says."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(mine: Path, run: str, steps: int, values: Sequence[str]) -> Path:
    parts = (f"run_dir={run}", f"trainer.steps={steps}", *SMALL, *values)
    command(mine.parent, str(ROOT / "train.py"), "--config-dir", str(mine), *parts)
    return mine.parent / run


def state_of(run: Path, step: int) -> dict[str, Any]:
    _, state = read(run / "checkpoints" / f"step-{step:08}")
    return state


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(("speed/", "time", "validation/"))} for row in rows]


def use(mine: Path, run: Path) -> tokens.Tokens:
    """Measure a run, encode videos with it, and decode them; returns the tokens."""
    folder, parts = mine.parent, ("--parts", str(mine))
    write_videos(folder / "videos")
    said = command(folder, "-c", CLI, "evaluate", str(run), *parts, "replicates=0")
    assert "bits_per_pixel" in said
    command(folder, "-c", CLI, "encode", str(run), "videos", "--out", "tokens", *parts, "workers=0")
    command(folder, "-c", CLI, "decode", str(run), "tokens", "--out", "decoded", *parts, "size=model")
    assert len(list((folder / "decoded").rglob("*.mp4"))) == 5
    return tokens.open(folder / "tokens")


@pytest.mark.slow
def test_all_kinds_of_parts_at_once(mine: Path) -> None:
    values = [*EVERYTHING, f"data.root={mine.parent / 'arrays'}"]
    whole, parts = train(mine, "whole", 4, values), train(mine, "parts", 2, values)
    assert float(state_of(parts, 2)["loss"]["terms.drift.mean"]) != 0, "what the term remembers is saved"
    command(mine.parent, str(ROOT / "train.py"), "--config-dir", str(mine), f"resume={parts}", "trainer.steps=4")
    for name in ("autoencoder", "discriminator", "loss"):
        torch.testing.assert_close(state_of(parts, 4)[name], state_of(whole, 4)[name], rtol=0, atol=0)
    logged = [row for row in rows_of(whole) if "train/total" in row]
    assert [row for row in rows_of(parts) if "train/total" in row] == logged
    assert all("train/drift" in row and "codebook/usage" in row for row in logged)

    found = use(mine, whole)
    assert (found.codebook_size, found.depth) == (64, 1)
    command(mine.parent, "-c", CLI, "evaluate", "whole", "--data", "arrays", "--parts", str(mine), "replicates=0")
    measured_on = json.loads((whole / "evaluation.json").read_text())["protocol"]["data"]
    assert (measured_on["split"], measured_on["clips"], measured_on["clip_frames"]) == ("all files", 6, 3)
    assert found[0].codes.shape[1:] == (4, 8 * 4 // 3), "16 pixels high, and as wide as 64×48 are"
    tokenizer = vqgan.load(whole, parts=mine)
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    assert tokenizer.encode(frames).shape == (2, 4, 8)
    assert tokenizer(frames).reconstruction.shape == frames.shape


@pytest.mark.slow
def test_two_codes_a_position(mine: Path) -> None:
    run = train(mine, "run", 2, TWO_CODES)
    found = use(mine, run)
    assert (found.codebook_size, found.depth) == (16, 2)
    rows, columns = found[0].codes.shape[1:3]
    assert found[0].codes.shape[3] == 2
    assert found.clips(3)[0].shape == (3, rows, columns, 2)
    assert torch.equal(found.sequences(2 * columns)[0], found.clips(1)[0][0, 0].flatten()), "both codes side by side"
    assert found.total == sum(video.codes.size for video in found)
    tokenizer = vqgan.load(run, parts=mine)
    video = tokenizer.encode_video(mine.parent / "videos" / found[0].path)
    np.testing.assert_array_equal(video.codes, found[0].codes)
    frames = torch.rand(2, 3, 16, 16) * 2 - 1
    codes = tokenizer.encode(frames)
    assert codes.shape == (2, 4, 4, 2)
    torch.testing.assert_close(tokenizer.decode(codes), tokenizer(frames).reconstruction, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(n, rows, columns, 2\)"):
        tokenizer.decode(codes[..., 0])


@pytest.mark.slow
def test_whoever_loads_names_the_folder(mine: Path) -> None:
    """Its code would be run: a config from elsewhere must not be enough for that."""
    run = train(mine, "run", 1, ["model=signs"])
    with pytest.raises(CheckpointError, match=r"signs\.Signs.*--parts DIR"):
        vqgan.load(run)
    command(mine.parent, "-c", CLI, "export", str(run), "--out", "export", "--parts", str(mine))
    export = mine.parent / "export"
    with pytest.raises(CheckpointError, match=r"signs\.Signs.*--parts DIR"):
        vqgan.load(export)
    assert vqgan.load(export, parts=mine).sha256() == vqgan.load(run, parts=mine).sha256()
    (mine.parent / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"signs\.Signs"):
        vqgan.load(export, parts=mine.parent / "empty")


def test_the_example_of_the_manual_is_one_that_was_tried() -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", page, flags=re.DOTALL)
    shown = {(PARTS / name).read_text(encoding="utf-8") for name in ("signs.py", "model/signs.yaml")}
    assert shown <= set(blocks)
