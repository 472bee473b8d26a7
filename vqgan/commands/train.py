"""Train a tokenizer: compose the config from groups and overrides, then run it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vqgan.config.build import conf_dir
from vqgan.config.command import with_home
from vqgan.config.keys import TOP_LEVEL
from vqgan.config.outside import look_in
from vqgan.config.user_errors import USER_ERRORS, end, is_from_hydra, storage_error
from vqgan.config.versions import BASE, calls_ours
from vqgan.errors import ConfigError
from vqgan.runs.defaults import defaults_then
from vqgan.runs.saved import load_config, translated, typed_for
from vqgan.runs.sweep import SWEEP
from vqgan.runtime.process import this_process
from vqgan.sweeps import launched
from vqgan.text import PROGRAM

MULTIRUN = ("-m", "--multirun")
SYNTHETIC = "synthetic"  # the choice of data that train.yaml makes


@hydra.main(**BASE, config_path=str(conf_dir()), config_name="train")
@launched.job
def compose_and_run(config: DictConfig) -> float | None:
    """Hydra's entry: one call per job, which in a sweep returns its objective."""
    hydra_config: Any = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    of_hydra: Any = OmegaConf.to_container(hydra_config.overrides.hydra, resolve=False)
    typed: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # resolved it could hold secrets
    try:
        _refuse_unasked(hydra_config, typed)
        if hydra_config.mode == RunMode.MULTIRUN:
            from vqgan.sweeps.job import run_job

            return run_job(config, hydra_config)
        _refuse_sweep(hydra_config, folder)
        if "prior" in config:  # as resume=DIR may have brought it
            from vqgan.prior import run as train  # here, so that --help and completion need not wait for torch
        else:
            from vqgan.training import run as train  # type: ignore[no-redef]

        if config.resume is not None:
            typed = [*typed_for(folder), *(override for override in typed if not override.startswith("resume="))]
            config = translated(config)  # Hydra has composed it from the run's own
        config.run_dir = str(folder)
        train.run(config, typed)
        return None
    except USER_ERRORS as error:
        end(error, [*of_hydra, *typed])
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # only an empty folder goes: nothing came of it


def main() -> None:
    """Run, and end with the promised exit code and one paragraph if that fails."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would end with 1 for everything
    typed = sys.argv[1:]
    try:
        arguments = [with_home(argument) for argument in typed]
        _refuse_flags(arguments)
        sys.argv[1:] = as_begun(resuming(_flags_first(arguments)))  # where Hydra reads it
        if own := _config_dir(typed):
            look_in(own)  # the classes that its yaml files name
        if any(flag in typed for flag in MULTIRUN):
            if this_process().count > 1:
                raise ConfigError(
                    "--multirun under torchrun would start every job in each of its processes. Start torchrun for each "
                    "job, or see hydra.launcher.tasks_per_node in docs/clusters.md."
                )
            launched.prepare()
        with calls_ours():
            compose_and_run()
    except USER_ERRORS as error:
        end(error, typed)
    except Exception as error:
        known = storage_error(error) or launched.failure(error)
        if known is None and not (isinstance(error, ValueError) and is_from_hydra(error)):
            raise
        end(known or error, typed)


def _config_dir(arguments: list[str]) -> str | None:
    """The folder of the user's own yaml files, if one is named."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    known, _ = parser.parse_known_args(arguments)
    found: str | None = known.config_dir
    return found


def resuming(arguments: list[str]) -> list[str]:
    """With `resume=DIR` among them, the arguments by which Hydra composes from that run's own config.

    Raises:
        ConfigError: there is no run, or something other than single values is to change.
    """
    parsed = _overrides(arguments)
    folder = _value(parsed, "resume")
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
        if override.is_delete() or section or key in ("experiment", "sweep"):
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


def as_begun(arguments: list[str]) -> list[str]:
    """With the `run_dir` of what an older version began, its command again stands for what it stood for then."""
    parsed = _overrides(arguments)
    folder = _value(parsed, "run_dir")
    if folder is None or _value(parsed, "resume") is not None or "--config-name" in arguments:
        return arguments  # older versions had no other recipes than train.yaml
    return [*arguments, *defaults_then(Path(folder), [override.key_or_group for override in parsed])]


def _overrides(arguments: Iterable[str]) -> list[Override]:
    texts = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    return OverridesParser.create().parse_overrides(texts)


def _value(overrides: Iterable[Override], key: str) -> str | None:
    return next((str(o.value()) for o in overrides if o.key_or_group == key), None)


def _refuse_sweep(hydra_config: DictConfig, folder: Path) -> None:
    study = hydra_config.runtime.choices.get("sweep")
    if study is not None:
        raise ConfigError(f"sweep={study} stands for several runs: add -m, as in {PROGRAM} -m sweep={study} ...")
    for override in hydra_config.overrides.hydra:
        if override.startswith(("hydra/launcher=", "hydra/sweeper=")):
            raise ConfigError(f"{override} is for several runs: add -m.")
    if (folder / SWEEP).exists():
        raise ConfigError(f"run_dir={folder} is the folder of a sweep: add -m to go on with it, or choose another one.")


def _refuse_unasked(hydra_config: DictConfig, typed: list[str]) -> None:
    """A folder was named and no kind of data, which leaves the synthetic videos: hardly what was meant."""
    keys = {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in typed)}
    named = next((key for key in ("data.root", "data.val_root") if key in keys), None)
    if named is None or "data" in keys or hydra_config.runtime.choices.get("data") != SYNTHETIC:
        return
    raise ConfigError(
        f"{named}={keys[named]} was given without data=, and then the data are synthetic videos. Type data=videos for "
        "a folder of videos, data=images for one of pictures, data=shards for what vqgan shard wrote; or "
        f"data={SYNTHETIC}, if that is where synthetic videos are to be kept."
    )


def _refuse_flags(arguments: list[str]) -> None:
    """`--steps 100` is a natural thing to type, and argparse's own answer names no key."""
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    for argument in arguments:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and not any(option.startswith(flag) for option in known):
            key = flag.lstrip("-").replace("-", "_")
            raise ConfigError(
                f"{flag} is no flag here: values are typed as key=value, {key}=… perhaps. --help lists the keys."
            )


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's parser takes no flag between overrides, and `experiment=x -m seed=1,2` is a natural thing to type."""
    return sorted(arguments, key=lambda argument: argument not in MULTIRUN)
