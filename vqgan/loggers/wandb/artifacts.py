"""What a run leaves to others: its best checkpoint, and the tokenizer in it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from vqgan.errors import CheckpointError
from vqgan.runs.checkpoint import STATE, read_manifest
from vqgan.runs.criterion import criterion_in


def best_checkpoint(run: Path) -> dict[str, Any] | None:
    """The checkpoint `best` as an artifact that refers to it; None if there is none.

    It has the step, the hash, and what made it the best: `psnr`, or whatever the objective was.
    """
    folder = run / "checkpoints" / "best"
    try:
        manifest = read_manifest(folder)
        step, digest = int(manifest["step"]), str(manifest["files"][STATE]["sha256"])
        objective = criterion_in(manifest)
        name, value = objective.scalar.rpartition("/")[2], objective.sign * float(manifest["score"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        return None
    return {
        "kind": "artifact", "name": "checkpoint", "type": "checkpoint", "folder": str(folder.resolve()),
        "copied": False, "aliases": ["best", f"step-{step}"],
        "metadata": {"step": step, name: value, "sha256": digest},
    }  # fmt: skip


def exported(run: Path, folder: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer of `checkpoint` as an artifact to copy, after writing it to `folder` as `vqgan export` does.

    Raises:
        VQGANError: the checkpoint is damaged, or the folder cannot be written.
    """
    from vqgan.tokenizer.export import export  # here, since it is seldom asked for and brings the networks along

    shutil.rmtree(folder, ignore_errors=True)
    export(run, folder, "safetensors")
    return checkpoint | {"name": "tokenizer", "type": "model", "folder": str(folder.resolve()), "copied": True}


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if it has gone."""
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0
