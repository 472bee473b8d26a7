"""The folder of one run: who is in it, and what was asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from vqgan.config.build import values_of
from vqgan.config.keys import EXPECTED, FIXED, MAY_CHANGE, of_kind
from vqgan.errors import ConfigError, DataError, RunFolderInUseError, StorageError
from vqgan.files.continued import first_difference
from vqgan.files.writing import replace_text
from vqgan.runs.saved import load_config
from vqgan.runs.status import STATUS, Status, record_end, to_json
from vqgan.runtime.signals import StopSignals

LOOKED_AT = 1.0  # seconds, far longer than `status_of` holds the lock


class RunFolder:
    """Holds a run folder for this process, and keeps there what was asked for.

    `config.yaml` is the composed config, unresolved (so without secrets), `overrides.yaml` what was typed,
    `status.json` what has become of it. A config or data that turn out to be wrong before training begins (`keep`)
    leave the folder as it was before.

    Raises:
        RunFolderInUseError: another process trains there.
        ConfigError: the run that is there has another architecture.
        StorageError: the folder cannot be written to.
    """

    def __init__(self, path: Path, config: DictConfig, overrides: Sequence[str]) -> None:
        self.path, self.config, self.overrides = path, config, overrides
        self.lock = FileLock(path / ".lock")
        self.before: dict[Path, str | None] = {}

    def __enter__(self) -> RunFolder:
        owner = self.path / ".owner"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=LOOKED_AT)
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        except Timeout:
            who = owner.read_text() if owner.exists() else "another process"
            raise RunFolderInUseError(
                f"The run folder {self.path} is in use by {who}. Wait for it, or choose another run_dir."
            ) from None
        except OSError as error:
            raise StorageError(f"The run folder {self.path} cannot be written to: {error.strerror}.") from None
        try:
            self._refuse_another_model()
            texts = {
                "config.yaml": OmegaConf.to_yaml(self.config, resolve=False),
                "overrides.yaml": OmegaConf.to_yaml(list(self.overrides)),
                STATUS: to_json(Status("running")),
            }
            for name, text in texts.items():
                file = self.path / name
                self.before[file] = file.read_text() if file.exists() else None
                replace_text(file, text)
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        return self

    def keep(self) -> None:
        """Training begins: what was written stays, whatever the run will end with."""
        self.before.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        with StopSignals() as stop:  # torchrun tells all to stop when one has died; that must not hide why this one did
            self._leave(kind, error)
        if stop.requested:
            signal.raise_signal(signal.Signals[stop.name])

    def _leave(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if self.before and kind is not None and issubclass(kind, ConfigError | DataError):
            self._undo(kind)
        else:
            with contextlib.suppress(StorageError):  # what ended the run is more to the point
                record_end(self.path, error, self.overrides)
        (self.path / ".owner").unlink(missing_ok=True)
        self.lock.release()
        with contextlib.suppress(OSError):
            if {path.name for path in self.path.iterdir()} <= {".lock"}:
                (self.path / ".lock").unlink(missing_ok=True)
                self.path.rmdir()

    def _undo(self, error: type[BaseException]) -> None:
        for file, text in self.before.items():
            if text is None:
                file.unlink(missing_ok=True)
            else:
                replace_text(file, text)
        if None in self.before.values() and issubclass(error, ConfigError):
            (self.path / "bad_files.jsonl").unlink(missing_ok=True)  # a data error's message refers to it

    def _refuse_another_model(self) -> None:
        before = load_config(self.path)
        if before is None or not has_checkpoints(self.path):  # nothing is lost where nothing was saved
            return
        for key in (*of_kind(FIXED, self.config), *(EXPECTED if self.config.resume is None else ())):
            difference = first_difference(_comparable(before, key), _comparable(self.config, key), key)
            if difference is not None:
                where, old, new = difference
                raise ConfigError(
                    f"The run in {self.path} has another {key} ({where}: {old} there, {new} here), and a run keeps its "
                    f"own. Continue it as it is with resume={self.path}, or choose another run_dir."
                )


def has_checkpoints(folder: Path) -> bool:
    """Whether there are any in a run folder, intact or not."""
    return any((folder / "checkpoints").glob("step-*"))


def _comparable(config: DictConfig, key: str) -> object:
    value = config.get(key)
    if not isinstance(value, DictConfig):
        return value
    # Which files there are is for the checkpoint to say.
    return {k: v for k, v in values_of(value, key).items() if f"{key}.{k}" not in MAY_CHANGE}
