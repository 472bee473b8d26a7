"""Checkpoints that are whole or not there: written aside, hashed, renamed; verified before they are loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from vqgan.errors import CheckpointError, ConfigError, StorageError
from vqgan.files.plain_data import read_plain
from vqgan.files.reading import load_json, read_whole
from vqgan.files.state import sha256_of
from vqgan.files.writing import storing
from vqgan.runs.criterion import PSNR, Criterion, criterion_in
from vqgan.runtime.device import is_out_of_memory

MANIFEST, STATE = "manifest.json", "state.pt"
LARGEST_MANIFEST = 2**16  # bytes
LARGEST_STEP = 10**12


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can hold: tensors, numbers, text, lists and dicts of them."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Restore the state."""


class Checkpoints:
    """The folder `checkpoints` of a run: `step-00001000/{state.pt, manifest.json}` and the links `latest` and `best`.

    Args:
        folder: made at the first save; the run folder must be there.
        keep: so many of the newest stay, and the best.
        objective: by which scores were given; a score by another one is not compared with them.
    """

    def __init__(self, folder: Path, keep: int, objective: Criterion = PSNR) -> None:
        self.folder, self.keep, self.objective = folder, keep, objective
        self.writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.saving: Future[Path] | None = None

    def save_in_background(self, step: int, score: float | None = None, **stateful: Stateful) -> None:
        """Write the checkpoint of step `step`; if `score` is the highest so far it becomes `best`.

        A copy of the state is written while training goes on, after the save before; `finish` it. At every instant
        there is a good checkpoint, if there was one before.

        Raises:
            StorageError: the one before could not be written.
        """
        self.finish()
        state = {name: part.state_dict() for name, part in stateful.items()}
        copy = copy_of(state)
        for device in {tensor.device for tensor in tensors_of(state) if tensor.is_cuda}:
            torch.cuda.synchronize(device)  # until the copies are there
        self.saving = self.writer.submit(self._save, step, score, copy)

    def finish(self, wait: bool = True) -> None:
        """Wait for a save in the background, or only see whether it has failed.

        Raises:
            StorageError: it could not be written; the older checkpoints are untouched.
        """
        if self.saving is not None and (wait or self.saving.done()):
            saving, self.saving = self.saving, None
            saving.result()

    def _save(self, step: int, score: float | None, state: Mapping[str, Any]) -> Path:
        target, aside = self._path(step), self.folder / f".unfinished-{step}"
        try:
            with storing(target, size_of(state)):
                self.folder.mkdir(exist_ok=True)
                _discard(self.folder.glob(".unfinished-*"))  # what kills have left
                self._write(aside, step, score, state)
                self._publish(aside, target)
                self._link("latest", target)
                if score is not None and score > self.best_score():
                    self._link("best", target)
                self._prune(step)
        except StorageError:
            _discard([aside])
            raise
        return target

    def rate(self, step: int, score: float) -> None:
        """Give the checkpoint of a step, which was saved before it was measured, its score.

        Raises:
            CheckpointError: it is damaged.
            StorageError: it cannot be written.
        """
        target = self._path(step)
        manifest = read_manifest(target) | {"score": score, "objective": self.objective.name}
        aside = target / f".{MANIFEST}"
        with storing(target):
            aside.write_text(_with_digest(manifest))
            _flush(aside)
            aside.replace(target / MANIFEST)
            if score > self.best_score():
                self._link("best", target)

    def require_room(self, size: int) -> None:
        """Check before the first step that there is room for two checkpoints of `size` bytes.

        Raises:
            StorageError: there is not.
        """
        free = shutil.disk_usage(self.folder.parent).free
        if free < 2 * size:
            raise StorageError(
                f"{self.folder} has no room for checkpoints: the new one and the one before it need "
                f"{2 * size:,} bytes, and {free:,} are free. Free some space, or choose another run_dir."
            )

    def load_latest(self, **stateful: Stateful) -> int:
        """Give each part its state from the newest good checkpoint.

        Returns:
            Its step; 0 if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none is intact.
            ConfigError: it is of another model.
        """
        found = self._newest_first()
        links = [self.folder / name for name in (["latest"] if found else ["latest", "best"])]
        complaints = [f"{link} leads to no checkpoint." for link in links if link.is_symlink() and not link.exists()]
        intact = self._first_intact(found, complaints)
        if intact is None:
            return 0
        path, step, state = intact
        if state.keys() != stateful.keys():
            raise ConfigError(
                f"{path} is of another kind of run: it holds {', '.join(state)}, not {', '.join(stateful)}."
            )
        for name, part in stateful.items():
            try:
                part.load_state_dict(state[name])
            except ConfigError:
                raise
            except Exception as error:  # whatever a part makes of a state that is not its own
                if is_out_of_memory(error):
                    raise
                raise ConfigError(f"{path} does not fit this configuration's {name}: {error}") from None
        if complaints:
            warnings.warn(f"{' '.join(complaints)} The run goes on from {path}, the newest good one.", stacklevel=2)
        return step

    def read_best(self) -> tuple[int, dict[str, Any]]:
        """Step and state of `best`, or of the newest good checkpoint if that is damaged.

        Raises:
            CheckpointError: none is intact, or there is none.
        """
        best = (self.folder / "best").resolve()
        found = [*([best] if best in [path.resolve() for path in self._newest_first()] else []), *self._newest_first()]
        complaints: list[str] = []
        intact = self._first_intact(dict.fromkeys(found), complaints)
        if intact is None:
            raise CheckpointError(f"There is no checkpoint in {self.folder}.")
        path, step, state = intact
        if complaints:
            warnings.warn(f"{' '.join(complaints)} {path} is taken instead.", stacklevel=2)
        return step, state

    def replace_damaged_best(self) -> None:
        """Let `best` be the best intact checkpoint, if it leads to a damaged one: its score could not be reached again.

        Raises:
            StorageError: the link cannot be written.
        """
        best = self.folder / "best"
        try:
            if best.is_symlink():
                _verify(best)
            return
        except CheckpointError as error:
            complaint = str(error)
        scores = {path: self._score(path) for path in self._newest_first() if _is_intact(path)}
        known = {path: score for path, score in scores.items() if score is not None}
        found = max(known, key=known.__getitem__, default=None)
        with storing(best):
            best.unlink()
            if found is not None:
                self._link("best", found)
        instead = f"{found} is the best of the others" if found else "the next evaluation decides which one is the best"
        warnings.warn(f"{complaint} It was the best checkpoint: {instead}.", stacklevel=2)

    def warn_of_another_objective(self) -> None:
        """Say what becomes of a `best` that was chosen by another objective than this one."""
        best = self.folder / "best"
        rated = rating(best)
        if rated is not None and rated[0] != self.objective:
            warnings.warn(
                f"{best.resolve()} is the best checkpoint by {rated[0].name}, and is not compared with those that "
                f"objective={self.objective.name} rates: it stays `best` until the next evaluation, from which on the "
                "best is sought anew. Copy it if you need it later.",
                stacklevel=2,
            )

    def best_score(self) -> float:
        """The score of `best`; minus infinity if there is none, or it is by another objective."""
        score = self._score(self.folder / "best")
        return float("-inf") if score is None else score

    def _score(self, path: Path) -> float | None:
        rated = rating(path)
        return None if rated is None or rated[0] != self.objective else rated[1]

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), key=_number, reverse=True)

    def _first_intact(self, paths: Iterable[Path], complaints: list[str]) -> tuple[Path, int, dict[str, Any]] | None:
        """The first good one of some checkpoints, with its step and state; what is wrong with those before it is added.

        None if there never was one. Where all are damaged that is an error: a run must not begin anew in silence.
        """
        for path in paths:
            try:
                return path, *read(path)
            except CheckpointError as error:
                complaints.append(str(error))
        if complaints:
            raise CheckpointError(
                f"{' '.join(complaints)} No checkpoint in {self.folder} is intact, so nothing was loaded. Bring one "
                "back from a copy, or begin anew with another run_dir."
            )
        return None

    def _write(self, aside: Path, step: int, score: float | None, state: Mapping[str, Any]) -> None:
        aside.mkdir()
        torch.save(dict(state), aside / STATE)
        file = aside / STATE
        files = {STATE: {"sha256": sha256_of(file), "bytes": file.stat().st_size}}
        rated = {"score": score, "objective": self.objective.name}
        manifest = {"step": step, **rated, "torch": torch.__version__, "files": files}
        (aside / MANIFEST).write_text(_with_digest(manifest))
        for part in (*aside.iterdir(), aside):
            _flush(part)

    def _publish(self, aside: Path, target: Path) -> None:
        _discard([target])  # it can only be a damaged one, from which an earlier resume fell back
        aside.rename(target)
        _flush(self.folder)

    def _link(self, name: str, target: Path) -> None:
        aside = self.folder / f".{name}"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.name)
        aside.replace(self.folder / name)
        _flush(self.folder)

    def _prune(self, step: int) -> None:
        """Keep the newest and the best. Those of later steps are damaged: else the run would have gone on from them."""
        older = [path for path in self._newest_first() if _number(path) <= _number(self._path(step))]
        kept = {(self.folder / "best").resolve(), *(path.resolve() for path in older[: self.keep])}
        _discard(path for path in self._newest_first() if path.resolve() not in kept)


def read(path: Path) -> tuple[int, dict[str, Any]]:
    """A checkpoint's step and state, after comparing its size and hash; no code in it is ever run.

    Raises:
        CheckpointError: something is missing or altered, or it is more than plain data.
    """
    step = _verify(path)
    state = read_plain(path / STATE)
    state = dict(dict.items(state)) if isinstance(state, dict) else {}  # whatever its own methods were replaced by
    if not state or not all(isinstance(part, dict) for part in state.values()):
        raise CheckpointError(f"The checkpoint {path} holds no state.")
    return step, state


def _verify(path: Path) -> int:
    """Compare a checkpoint with its size and hash; returns its step.

    Raises:
        CheckpointError: something is missing or altered.
    """
    manifest = read_manifest(path)
    file = path / STATE
    try:
        step, expected = manifest["step"], dict(manifest["files"][STATE])
        if type(step) is not int or not 0 <= step < LARGEST_STEP:
            raise ValueError("its step is no number of steps")
        if not file.is_file():
            raise ValueError(f"{STATE} is no file")
        if file.stat().st_size != expected["bytes"]:
            raise CheckpointError(f"The checkpoint {path} is damaged: {STATE} has not the size that was saved.")
        if sha256_of(file) != expected["sha256"]:
            raise CheckpointError(f"The checkpoint {path} is damaged: {STATE} is not what was saved (SHA-256 differs).")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"The checkpoint {path} is damaged ({type(error).__name__}: {error}).") from None
    return step


def _is_intact(path: Path) -> bool:
    try:
        _verify(path)
    except CheckpointError:
        return False
    return True


def rating(path: Path) -> tuple[Criterion, float] | None:
    """A checkpoint's score, and by which objective it is; None where it has none, or its manifest is damaged."""
    try:
        manifest = read_manifest(path)
        return criterion_in(manifest), float(manifest["score"])
    except (CheckpointError, TypeError, ValueError, KeyError, OverflowError):
        return None


def read_manifest(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, if it is exactly what was written.

    Raises:
        CheckpointError: it is not.
    """
    try:
        text = read_whole(path / MANIFEST, LARGEST_MANIFEST)
        manifest = load_json(text)
        whole = {key: value for key, value in manifest.items() if key != "sha256"}
        if text != _with_digest(whole):
            raise ValueError("not what was saved")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint {path} is damaged: {MANIFEST}: {error}.") from None
    return whole


def copy_of(state: Any) -> Any:
    """Parts in the memory of the host, which training does not change; from a GPU they may still be on their way."""
    if isinstance(state, torch.Tensor):
        copy = torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return copy.copy_(state.detach(), non_blocking=state.is_cuda)
    if isinstance(state, Mapping):
        return {key: copy_of(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        copies = [copy_of(value) for value in state]
        return tuple(copies) if isinstance(state, tuple) else copies
    return state


def size_of(state: Any) -> int:
    """Bytes that a checkpoint of these parts takes, about."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(state))


def tensors_of(state: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from tensors_of(value)


def _discard(folders: Iterable[Path]) -> None:
    """Remove folders; a kill in the middle leaves nothing that is named as a checkpoint is."""
    for folder in list(folders):
        if folder.is_dir() and not folder.name.startswith("."):
            aside = folder.with_name(f".unfinished-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder = folder.rename(aside)
        shutil.rmtree(folder, ignore_errors=True)


def _number(path: Path) -> str:
    return path.name.zfill(64)  # a step of more than eight digits comes after one of eight


def _with_digest(manifest: Mapping[str, Any]) -> str:
    """The manifest's text, in which its own hash stands too."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=1)


def _flush(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
