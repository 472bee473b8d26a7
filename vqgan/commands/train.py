"""Train a tokenizer: compose the config from groups and overrides, then run it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vqgan import launched
from vqgan.config import TOP_LEVEL, conf_dir, unknown_choice, unknown_key, unresolvable
from vqgan.distributed import this_process
from vqgan.errors import ConfigError, DivergedError, StoppedError, StorageError, VQGANError
from vqgan.privacy import without_secrets
from vqgan.run_folder import load_config, typed_for
from vqgan.signals import STOP_SIGNALS

MULTIRUN = ("-m", "--multirun")
ALIKE = (ConfigError, DivergedError, StoppedError)  # which end all processes of a run in the same words
FIRST_SPEAKS = 10  # seconds that the others wait for the first to say it
USER_ERRORS = (VQGANError, HydraException, OmegaConfBaseException, yaml.YAMLError, OSError)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")
@launched.job
def compose_and_run(config: DictConfig) -> None:
    """Hydra's entry: one call per job."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    typed: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # resolved it could hold secrets
    try:
        from vqgan import train  # here, so that --help and completion need not wait for torch

        if config.resume is not None:
            typed = [*typed_for(folder), *(override for override in typed if not override.startswith("resume="))]
        config.run_dir = str(folder)
        train.run(config, typed)
    except USER_ERRORS as error:
        if hydra_config.mode == RunMode.MULTIRUN and not isinstance(error, StoppedError):
            raise  # the other jobs of a multirun go on, and Hydra ends with this error after them
        _end(error)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only an empty folder goes: nothing came of it


def main() -> None:
    """Run, and end with the promised exit code and one paragraph if that fails."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would end with 1 for everything
    try:
        sys.argv[1:] = resuming(_flags_first(sys.argv[1:]))
        if any(flag in sys.argv for flag in MULTIRUN):
            if this_process().count > 1:
                raise ConfigError(
                    "--multirun under torchrun would start every job in each of its processes. Start torchrun for each "
                    "job, or see hydra.launcher.tasks_per_node in docs/clusters.md."
                )
            launched.prepare()
        compose_and_run()
    except USER_ERRORS as error:
        _end(error)
    except ValueError as error:
        if not _is_from_hydra(error):
            raise
        _end(error)
    except RuntimeError as error:
        known = launched.failure(error)
        if known is None:
            raise
        _end(known)


def resuming(arguments: list[str]) -> list[str]:
    """With `resume=DIR` among them, the arguments by which Hydra composes from that run's own config.

    Raises:
        ConfigError: there is no run, or something other than single values is to change.
    """
    overrides = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    parsed = OverridesParser.create().parse_overrides(overrides)
    folder = next((o.value() for o in parsed if o.key_or_group == "resume"), None)
    if folder is None:
        return arguments
    saved = load_config(Path(str(folder)))
    if saved is None:
        raise ConfigError(f"resume={folder}: there is no run in that folder (no config.yaml).")
    unknown = sorted(str(key) for key in saved if key not in TOP_LEVEL)
    if unknown:  # a section for Hydra could name things to call
        raise ConfigError(f"resume={folder}: its config.yaml has the unknown key '{unknown[0]}', which no run writes.")
    if any(flag in arguments for flag in MULTIRUN):
        raise ConfigError("resume= continues one run: leave --multirun out.")
    for override in parsed:
        key = override.key_or_group
        section = isinstance(OmegaConf.select(saved, key, throw_on_resolution_failure=False), DictConfig)
        if override.is_delete() or section or key == "experiment":
            raise ConfigError(
                f"With resume=, single values can be changed (key.name=value), but not '{override.input_line}': "
                "the run keeps its own choices."
            )
    path = str(Path(str(folder)).resolve())
    quoted = path.replace("\\", "\\\\").replace("'", "\\'")
    ours = [
        f"hydra.run.dir='{quoted}'",
        "hydra.output_subdir=null",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
    ]
    return ["--config-path", path, "--config-name", "config", *arguments, *ours]


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's parser takes no flag between overrides, and `experiment=x -m seed=1,2` is a natural thing to type."""
    return sorted(arguments, key=lambda argument: argument not in MULTIRUN)


def _is_from_hydra(error: BaseException) -> bool:
    """Whether Hydra raised it, over a defaults list for example, and not our own code."""
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return str(innermost.f_globals.get("__name__")).startswith("hydra.")


def _end(error: BaseException) -> None:
    known = error if isinstance(error, VQGANError) else _in_our_words(error)
    process = this_process()
    if not process.is_first and isinstance(known, ALIKE):
        for name in STOP_SIGNALS:
            signal.signal(signal.Signals[name], signal.SIG_DFL)
        time.sleep(FIRST_SPEAKS)  # whereupon torchrun ends this one
    said_by = "" if process.is_first else f"Process {process.rank} of {process.count}: "
    print(f"\n{said_by}{without_secrets(str(known))}", file=sys.stderr)
    sys.exit(known.exit_code)


def _in_our_words(error: BaseException) -> VQGANError:
    cause = error.__cause__ if isinstance(error, HydraException) else error
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        return _unknown(cause)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return unknown_choice(*error.missing_cfg_file.rpartition("/")[::2], error.options)
    if isinstance(error, OverrideParseException):
        return ConfigError(
            f"'{error.override}' cannot be read as key=value: {_one_line(str(error))}. A value with a space, comma or "
            "bracket in it needs quotes inside quotes: 'key=\"value\"'."
        )
    if isinstance(error, OmegaConfBaseException):
        return unresolvable(error)
    if isinstance(error, yaml.YAMLError):
        return ConfigError(f"A yaml file cannot be read: {_one_line(str(error))}.")
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return StorageError(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.")
    return _composition_error(error)


def _composition_error(error: BaseException) -> ConfigError:
    message = _one_line(str(error) or str(error.__cause__)).replace("\\'", "'")
    typed = [argument for argument in sys.argv[1:] if "=" in argument]
    if not any(override.partition("=")[0].lstrip("+~") in message for override in typed):
        message += f" Typed: {' '.join(typed)}."
    return ConfigError(message)


def _one_line(message: str) -> str:
    lines = [line.strip() for line in message.split("Config search path:")[0].splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("See https")).rstrip(".")


def _unknown(error: Any) -> ConfigError:
    parent = error.parent_node
    nested = "." in str(error.full_key) and parent is not None
    return unknown_key(str(error.full_key), parent if nested else (*TOP_LEVEL, "experiment"))
