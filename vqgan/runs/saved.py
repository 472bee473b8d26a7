"""What a run's folder says of it: its config, and what was typed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vqgan.config.keys import FIXED, of_kind
from vqgan.config.moved import as_today, key_today
from vqgan.errors import ConfigError
from vqgan.files.reading import read_yaml


def load_config(folder: Path) -> DictConfig | None:
    """The config of the run in a folder; None if there is none.

    Raises:
        ConfigError: the file is not a run's config.
    """
    file = folder / "config.yaml"
    if not file.exists():
        return None
    config = read_yaml(file)
    kept = of_kind(FIXED, config) if isinstance(config, DictConfig) else FIXED
    if not isinstance(config, DictConfig) or any(key not in config for key in kept):
        raise ConfigError(f"{file} is not the config of a run: it has no {', '.join(kept)}.")
    return translated(config)


def translated(config: DictConfig) -> DictConfig:
    """A run's config as this version would have written it, interpolations as they are."""
    return OmegaConf.create(as_today(OmegaConf.to_container(config, resolve=False)))


def typed_for(folder: Path) -> list[str]:
    """What was typed for the run in a folder."""
    file = folder / "overrides.yaml"
    typed = OmegaConf.to_container(read_yaml(file)) if file.exists() else []
    return [key_today(str(override)) for override in typed] if isinstance(typed, list) else []


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run that has logged something."""
    return (folder / "metrics.jsonl").is_file()


def runs_in(folder: Path, is_one: Callable[[Path], bool] = is_run) -> list[Path]:
    """The run that a folder is, or all runs below it.

    Raises:
        ConfigError: there is none.
    """
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}.")
    found = [folder] if is_one(folder) else sorted(_below(folder, is_one))
    if not found:
        raise ConfigError(f"{folder} is no run folder and holds none: there is no metrics.jsonl.")
    return found


def _below(folder: Path, is_one: Callable[[Path], bool]) -> Iterator[Path]:
    for path, subfolders, _ in os.walk(folder):
        if is_one(Path(path)):
            subfolders.clear()
            yield Path(path)
        else:
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
