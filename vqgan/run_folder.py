"""The folder of one run: who is in it, and what was asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from vqgan.errors import ConfigError, RunFolderInUseError, StorageError

# What a run cannot change and still be the same run.
FIXED = ("model", "backbone", "discriminator")


class RunFolder:
    """Holds a run folder for this process, and keeps there what was asked for.

    `config.yaml` is the composed config, unresolved (so without secrets), `overrides.yaml` what was typed.

    Raises:
        RunFolderInUseError: another process trains there.
        ConfigError: the run that is there has another architecture.
        StorageError: the folder cannot be written to.
    """

    def __init__(self, path: Path, config: DictConfig, overrides: Sequence[str]) -> None:
        self.path, self.config, self.overrides = path, config, overrides
        self.lock = FileLock(path / ".lock")

    def __enter__(self) -> RunFolder:
        owner = self.path / ".owner"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
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
            (self.path / "config.yaml").write_text(OmegaConf.to_yaml(self.config, resolve=False))
            (self.path / "overrides.yaml").write_text(OmegaConf.to_yaml(list(self.overrides)))
        except BaseException:
            self.lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        (self.path / ".owner").unlink(missing_ok=True)
        self.lock.release()

    def _refuse_another_model(self) -> None:
        before = load_config(self.path)
        if before is None:
            return
        for key in FIXED:
            old, new = (OmegaConf.to_container(c[key], resolve=True) for c in (before, self.config))
            if old != new:
                raise ConfigError(
                    f"The run in {self.path} has another {key} ({_difference(old, new)}); a run keeps its own. "
                    f"Go on with resume={self.path}, or choose another run_dir."
                )


def load_config(folder: Path) -> DictConfig | None:
    """The config of the run in a folder; None if there is none."""
    file = folder / "config.yaml"
    if not file.exists():
        return None
    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    return config


def _difference(old: object, new: object, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(k for k in {**old, **new} if old.get(k) != new.get(k))
        return _difference(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    return f"{path}: {old} there, {new} here"
