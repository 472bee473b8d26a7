"""Checkpoints that are whole or not there: written aside, hashed, renamed; verified before they are loaded."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch

from vqgan.errors import CheckpointError, ConfigError, StorageError


class Stateful(Protocol):
    """What a checkpoint can hold: tensors, numbers, text, lists and dicts of them."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Take it back."""


class Checkpoints:
    """The folder `checkpoints` of a run: `step-00001000/{state.pt, manifest.json}` and the links `latest` and `best`.

    Args:
        folder: made at the first save.
        keep: so many of the newest stay, and the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def save(self, step: int, score: float | None = None, **stateful: Stateful) -> Path:
        """Write the checkpoint of step `step`; if `score` is the highest so far it becomes `best`.

        Raises:
            StorageError: it cannot be written; the older checkpoints are untouched.
        """
        target, aside = self._path(step), self.folder / f".unfinished-{step}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            torch.save({name: part.state_dict() for name, part in stateful.items()}, aside / "state.pt")
            manifest = {
                "step": step,
                "score": score,
                "torch": torch.__version__,
                "files": {
                    "state.pt": {"sha256": _sha256(aside / "state.pt"), "bytes": (aside / "state.pt").stat().st_size}
                },
            }
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for part in (*aside.iterdir(), aside):
                _flush(part)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            _flush(self.folder)
            self._link("latest", target)
            if score is not None and score > self.best_score():
                self._link("best", target)
            self._prune()
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            shutil.rmtree(aside, ignore_errors=True)
            raise StorageError(f"The checkpoint of step {step} cannot be written to {target}: {error}.") from error
        return target

    def load_latest(self, **stateful: Stateful) -> int:
        """Give each part its state from the newest good checkpoint.

        Returns:
            Its step; 0 if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none is intact.
            ConfigError: it is of another model.
        """
        found = sorted(self.folder.glob("step-*"), reverse=True)
        for path in found:
            try:
                step, state = self._read(path)
            except CheckpointError as error:
                warnings.warn(f"{error} The one before it is tried.", stacklevel=2)
                continue
            if state.keys() != stateful.keys():
                raise ConfigError(
                    f"{path} is of another kind of run: it holds {', '.join(state)}, not {', '.join(stateful)}."
                )
            for name, part in stateful.items():
                try:
                    part.load_state_dict(state[name])
                except (RuntimeError, ValueError) as error:
                    raise ConfigError(f"{path} does not fit this configuration's {name}: {error}") from None
            return step
        if found:
            raise CheckpointError(
                f"None of the {len(found)} checkpoints in {self.folder} is intact, so nothing was loaded."
            )
        return 0

    def read_best(self) -> tuple[int, dict[str, Any]]:
        """Step and state of `best`, or of the newest good checkpoint if that is damaged.

        Raises:
            CheckpointError: none is intact, or there is none.
        """
        best = [self.folder / "best"] if (self.folder / "best").exists() else []
        found = [*best, *sorted(self.folder.glob("step-*"), reverse=True)]
        for path in found:
            try:
                return self._read(path)
            except CheckpointError as error:
                warnings.warn(f"{error} Another one is tried.", stacklevel=2)
        raise CheckpointError(f"None of the {len(found)} checkpoints in {self.folder} is intact.")

    def best_score(self) -> float:
        """The score of `best`; minus infinity if there is none."""
        try:
            return float(json.loads((self.folder / "best" / "manifest.json").read_text())["score"])
        except (OSError, ValueError):
            return float("-inf")

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _read(self, path: Path) -> tuple[int, dict[str, Any]]:
        """A checkpoint's step and state, after comparing its hash.

        Raises:
            CheckpointError: something is missing or altered.
        """
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            step, expected = int(manifest["step"]), manifest["files"]["state.pt"]["sha256"]
            found = _sha256(path / "state.pt")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"The checkpoint {path} is damaged ({type(error).__name__}: {error}).") from None
        if found != expected:
            raise CheckpointError(
                f"The checkpoint {path} is damaged: state.pt is not what was saved (SHA-256 differs)."
            )
        try:
            state: dict[str, Any] = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError):
            raise CheckpointError(f"The checkpoint {path} is not plain data, so it was not loaded.") from None
        return step, state

    def _link(self, name: str, target: Path) -> None:
        aside = self.folder / f".{name}"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.name)
        aside.replace(self.folder / name)

    def _prune(self) -> None:
        kept = {(self.folder / "best").resolve()} | {
            p.resolve() for p in sorted(self.folder.glob("step-*"))[-self.keep :]
        }
        for path in self.folder.glob("step-*"):
            if path.resolve() not in kept:
                shutil.rmtree(path)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
