"""What a sweep is made of, kept in its folder: its command again must stand for the same jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vqgan.config.keys import FREE_IN_A_SWEEP, OWN_WHEN_TYPED, is_among
from vqgan.config.moved import DEFAULTS, key_today
from vqgan.errors import ConfigError
from vqgan.files.continued import first_difference
from vqgan.files.reading import read_yaml
from vqgan.files.writing import replace_text
from vqgan.runs.saved import typed_for

SWEEP = "sweep.yaml"  # in the sweep's folder
SEARCH = "hydra_plugins.vqgan_search.Search"  # the sweeper of a search
RATE = "vqgan.sweeps.rate.Rate"  # the hook of a study of rate and distortion


@dataclass(frozen=True)
class Definition:
    """What a sweep is made of, as typed: its jobs follow from it, and their numbers."""

    swept: Mapping[str, str]  # key to its several values, in the order that numbers the jobs
    fixed: Mapping[str, str]  # key to its one value
    study: str | None = None  # of a search: its name in the storage
    version: str | None = None  # that began it, which chose its defaults; None: 0.1


def is_search(hydra_config: DictConfig) -> bool:
    """Whether Hydra's own config asks for a search; without loading Optuna, which is an extra."""
    return bool(OmegaConf.select(hydra_config, "sweeper._target_") == SEARCH)


def is_rate(hydra_config: DictConfig) -> bool:
    """Whether it asks for what tokens cost under priors as well; without loading these."""
    return bool(OmegaConf.select(hydra_config, "callbacks.sweep._target_") == RATE)


def own_overrides(typed: Iterable[str]) -> list[str]:
    """What was typed for one job, without what is the sweep's alone."""
    return [override for override in typed if override.partition("=")[0] not in OWN_WHEN_TYPED]


def refuse_another_job(folder: Path, overrides: Sequence[str]) -> None:
    """Refuse a job's folder that was made for other values, as where values were shuffled.

    Raises:
        ConfigError: it was.
    """
    saved = typed_for(folder)
    known = {*saved, *(f"{key}={value}" for key, value in DEFAULTS.items())}  # those of 0.1 went without saying
    other = [override for override in own_overrides(overrides) if override not in known and not _is_free(override)]
    if saved and other:
        raise ConfigError(
            f"{folder} was made for another job: '{other[0]}' was not among what was typed for it. A job's number must "
            "stand for the same values each time; choose another run_dir."
        )


def swept_overrides(folder: Path, typed: Iterable[str]) -> list[str]:
    """Of what was typed for a job in a sweep's folder, what tells it from the others."""
    swept = read_definition(folder).swept
    return [override for override in typed if override.partition("=")[0] in swept]


def definition_of(config: DictConfig) -> Definition:
    """The sweep that a config of Hydra's describes."""
    params = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}), resolve=False)
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(params, dict)
    assert isinstance(typed, list)
    overrides = OverridesParser.create().parse_overrides(
        [*(f"{key!s}={value}" for key, value in params.items()), *typed]
    )
    last = {str(o.get_key_element()): o for o in overrides}  # a key keeps the place where it was first
    text = {key: str(o.input_line).partition("=")[2] for key, o in last.items()}
    swept = {key: text[key] for key, o in last.items() if o.is_sweep_override()}
    name = OmegaConf.select(config, "hydra.sweeper.study_name")
    return Definition(swept, {key: value for key, value in text.items() if key not in swept}, name, version("vqgan"))


def agreed(folder: Path, definition: Definition) -> Definition:
    """The definition, if the sweep that is in the folder has the same; its study keeps its name, wherever it moved.

    Raises:
        ConfigError: it is another sweep.
    """
    if not (folder / SWEEP).exists():
        return definition
    before = read_definition(folder)
    old, new = ({**d.swept, **{k: v for k, v in d.fixed.items() if not _is_free(k)}} for d in (before, definition))
    if before.version is None:
        old = {**{key: value for key, value in DEFAULTS.items() if key in new}, **old}
    found = first_difference(old, new)
    if found is None and list(before.swept) == list(definition.swept):
        return replace(definition, study=before.study, version=before.version)
    difference = "{}: {} there, {} here".format(*found) if found else f"first {next(iter(before.swept))}"
    raise ConfigError(
        f"The sweep in {folder} is another one ({difference}), and the numbers of its jobs stand for its values. "
        f"Type what its {SWEEP} says, or choose another run_dir."
    )


def read_definition(folder: Path) -> Definition:
    """The sweep in a folder.

    Raises:
        ConfigError: there is none.
    """
    values = OmegaConf.to_container(read_yaml(folder / SWEEP), resolve=False)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), dict) for key in ("swept", "fixed")):
        raise ConfigError(f"{folder / SWEEP} does not describe a sweep.")
    swept, fixed = ({key_today(str(k)): str(v) for k, v in values[key].items()} for key in ("swept", "fixed"))
    return Definition(swept, fixed, values.get("study"), values.get("version"))


def write_definition(folder: Path, definition: Definition) -> None:
    """Keep it.

    Raises:
        StorageError: it cannot be written.
    """
    values = {"swept": dict(definition.swept), "fixed": dict(definition.fixed), "study": definition.study}
    values |= {"version": definition.version}
    replace_text(folder / SWEEP, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _is_free(override: str) -> bool:
    return is_among(override.partition("=")[0].lstrip("+~"), FREE_IN_A_SWEEP)
