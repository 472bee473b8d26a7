"""The folder of one run: who is in it, and what was asked for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vqgan.config import values_of
from vqgan.errors import (
    ConfigError,
    DataError,
    DivergedError,
    PrunedError,
    RunFolderInUseError,
    StoppedError,
    StorageError,
    VQGANError,
    storing,
)
from vqgan.privacy import without_secrets
from vqgan.signals import StopRequested, StopSignals

# What a run cannot change and still be the same run.
FIXED = ("backbone", "model", "discriminator")
# What changes with the same run_dir only by mistake, as when the overrides are not typed again; resume= may change it.
EXPECTED = ("seed", "data")
# Values of data that may change; which files there are is for the checkpoint to say.
FREE = {
    "root",
    "val_root",
    "batch_size",
    "workers",
    "validation_clips",
    "max_bad_fraction",
    "max_bad_files",
    "limits",
    "index",
}
LARGEST_CONFIG = 2**16  # bytes
LONGEST_REASON = 500  # characters
MOST_BRACKETS = 500
STATUS = "status.json"
# States that another try would not change: a run that diverged would diverge again.
SETTLED = ("finished", "pruned", "diverged")
LARGEST_STATUS = 2**16  # bytes
LOOKED_AT = 1.0  # seconds, far longer than `status_of` holds the lock


@dataclass(frozen=True)
class Status:
    """What has become of a run."""

    # `running`, `finished`, `stopped` (by a signal, saved), `pruned` (by a search), `diverged`, `failed`, `interrupted`
    # (its process is gone)
    state: str
    message: str | None = None  # the paragraph that an error ended with
    exit_code: int | None = None  # of the process; None while it runs, or where it was killed


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
                STATUS: _to_json(Status("running")),
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
                record_end(self.path, error)
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
        for key in (*FIXED, *(EXPECTED if self.config.resume is None else ())):
            old, new = (_comparable(config, key) for config in (before, self.config))
            if old != new:
                difference = _difference(old, new, key)
                raise ConfigError(
                    f"The run in {self.path} has another {key} ({difference}), and a run keeps its own. "
                    f"Continue it as it is with resume={self.path}, or choose another run_dir."
                )


def has_checkpoints(folder: Path) -> bool:
    """Whether there are any in a run folder, intact or not."""
    return any((folder / "checkpoints").glob("step-*"))


def record_end(folder: Path, error: BaseException | None) -> None:
    """Write down what has become of the run in a folder: what it ended with, or that it is finished.

    Raises:
        StorageError: it cannot be written.
    """
    replace_text(folder / STATUS, _to_json(_status_after(error)))


def status_of(folder: Path) -> Status | None:
    """What has become of the run in a folder; None if nothing tells."""
    file = folder / STATUS
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_STATUS:
            return None
        values = json.loads(file.read_text(encoding="utf-8"))
        status = Status(str(values["state"]), values["message"], values["exit_code"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Status("interrupted") if status.state == "running" and not _is_held(folder) else status


def _is_held(folder: Path) -> bool:
    """Whether a process trains there; one on another machine is believed where the file system shares its locks."""
    file = folder / ".lock"
    if not file.is_file():
        return False
    try:
        with FileLock(file).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that is not for us to write to
        return False


def _status_after(error: BaseException | None) -> Status:
    if error is None:
        return Status("finished", exit_code=0)
    if isinstance(error, StopRequested):
        return Status("stopped", f"Stopped by {error}; what was finished is saved.", StoppedError.exit_code)
    states = {DivergedError: "diverged", StoppedError: "stopped", PrunedError: "pruned"}
    state = next((state for kind, state in states.items() if isinstance(error, kind)), "failed")
    return Status(state, without_secrets(str(error)), error.exit_code if isinstance(error, VQGANError) else 1)


def _to_json(status: Status) -> str:
    return json.dumps(asdict(status), ensure_ascii=False)


def load_config(folder: Path) -> DictConfig | None:
    """The config of the run in a folder; None if there is none.

    Raises:
        ConfigError: the file is not a run's config.
    """
    file = folder / "config.yaml"
    if not file.exists():
        return None
    config = read_yaml(file)
    if not isinstance(config, DictConfig) or any(key not in config for key in FIXED):
        raise ConfigError(f"{file} is not the config of a run: it has no {', '.join(FIXED)}.")
    return config


def read_yaml(file: Path) -> DictConfig | ListConfig:
    """A yaml file as data: its interpolations unresolved, nothing in it built, and no larger than a config can be.

    Raises:
        ConfigError: it is not that.
    """
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_CONFIG:
            raise ConfigError(f"{file} is no config: it is no file, or larger than {LARGEST_CONFIG} bytes.")
        text = file.read_text(encoding="utf-8")
        if (
            text.count("[") + text.count("{") > MOST_BRACKETS
        ):  # nested, the parser would take minutes for a page of them
            raise ConfigError(f"{file} is no config: it has more than {MOST_BRACKETS} brackets.")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # a few lines of them fill a memory
            raise ConfigError(f"{file} has aliases (*name), which are not read.")
        return OmegaConf.create(text)
    except (OSError, yaml.YAMLError, ValueError, AttributeError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {' '.join(str(error).split())[:LONGEST_REASON]}.") from None


def _comparable(config: DictConfig, key: str) -> object:
    value = config.get(key)
    if not isinstance(value, DictConfig):
        return value
    return {k: v for k, v in values_of(value, key).items() if k not in FREE}


def typed_for(folder: Path) -> list[str]:
    """What was typed for the run in a folder."""
    file = folder / "overrides.yaml"
    typed = OmegaConf.to_container(read_yaml(file)) if file.exists() else []
    return [str(override) for override in typed] if isinstance(typed, list) else []


def replace_text(file: Path, text: str) -> None:
    """Write a file so that it is never there in part, whoever else writes it at the same time.

    Raises:
        StorageError: it cannot be written.
    """
    # A name that nobody else has: not another process, nor, in a folder from elsewhere, a link to another file.
    aside = file.with_name(f".{file.name}.{uuid.uuid4().hex[:16]}")
    try:
        with storing(file):
            with aside.open("x", encoding="utf-8") as new:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())  # or the name could outlive a loss of power, and the text not
            aside.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _difference(old: object, new: object, path: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in {**old, **new} if old.get(k) != new.get(k))
        return _difference(old.get(key), new.get(key), f"{path}.{key}")
    return f"{path}: {old} there, {new} here"
