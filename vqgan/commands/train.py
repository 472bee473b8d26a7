"""Train a tokenizer: compose the config from groups and overrides, then run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vqgan.config import conf_dir, unknown_key
from vqgan.errors import ConfigError, VQGANError

# `resume=DIR` takes the place of a new run folder already where Hydra makes it.
OmegaConf.register_new_resolver("first_of", lambda *values: next(v for v in values if v), replace=True)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
def compose_and_run(config: DictConfig) -> None:
    """Hydra's entry: one call per job."""
    from vqgan import train  # here, so that --help and completion need not wait for torch

    hydra_config = HydraConfig.get()
    folder, typed = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    try:
        if config.resume is not None:
            config, typed = resumed_config(Path(config.resume), typed)
        config.run_dir = str(folder)
        train.run(config, typed)
    except VQGANError as error:
        if hydra_config.mode == RunMode.MULTIRUN:
            raise  # the other jobs of a multirun go on, and Hydra ends with this error after them
        _end(str(error), error.exit_code)
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # nothing came of it


def resumed_config(folder: Path, typed: list[str]) -> tuple[DictConfig, list[str]]:
    """The config of the run in `folder` with the values that were typed this time, and all that was typed for it.

    Raises:
        ConfigError: there is no run, or something other than a value is to change.
    """
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"resume={folder}: there is no run in that folder (no config.yaml).")
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    OmegaConf.set_struct(config, True)
    for override in OverridesParser.create().parse_overrides(typed):
        key = override.key_or_group
        if key == "resume":
            continue
        if override.is_delete() or isinstance(OmegaConf.select(config, key), DictConfig):
            raise ConfigError(f"With resume=, single values can be changed, but not '{override.input_line}'.")
        try:
            OmegaConf.update(config, key, override.value(), force_add=override.is_add())
        except (ConfigAttributeError, ConfigKeyError) as error:
            raise _unknown(error) from None
    before = OmegaConf.to_container(OmegaConf.load(folder / "overrides.yaml"))
    assert isinstance(before, list)
    return config, [*before, *(override for override in typed if not override.startswith("resume="))]


def main() -> None:
    """Run, and end with the promised exit code and one paragraph if that fails."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would end with 1 for everything
    try:
        compose_and_run()
    except VQGANError as error:
        _end(str(error), error.exit_code)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if isinstance(error, ValueError) and "override" not in str(error).lower():
            raise
        _end(_explain(error), ConfigError.exit_code)


def _end(message: str, exit_code: int) -> None:
    print(f"\n{message}", file=sys.stderr)
    sys.exit(exit_code)


def _explain(error: Exception) -> str:
    """Hydra's message as one paragraph, with the choices."""
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return str(_unknown(cause))
    lines = [line.strip() for line in (str(error) or str(cause)).split("Config search path:")[0].splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("See https"))


def _unknown(error: Any) -> ConfigError:
    parent = error.parent_node
    return unknown_key(str(error.full_key), parent if parent is not None else [])
