"""The values of a command that works with a finished run: its yaml, and what was typed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vqgan.config.build import conf_dir, unknown_key
from vqgan.errors import ConfigError


def with_home(argument: str) -> str:
    """`key=~/folder` as `key='/home/me/folder'`: a shell leaves that ~ alone, and Hydra's grammar knows none.

    Several values, as a sweep has, are left as they are.
    """
    key, equals, value = argument.partition("=")
    if not equals or not re.fullmatch(r"\+{0,2}[\w./@]+", key) or not re.fullmatch(r"~[\w.-]*(/[^,]*)?", value):
        return argument
    return f"{key}={quoted(os.path.expanduser(value))}"  # noqa: PTH111  # for any user


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def command_config(name: str, typed: Sequence[str], sections: Mapping[str, Any] | None = None) -> DictConfig:
    """The values of `conf/<name>.yaml`, with `key=value` as typed, in Hydra's grammar.

    Args:
        name: of the command.
        typed: what changes the values.
        sections: added before: what follows from the run, by name.

    Raises:
        ConfigError: an override is none, or its key does not exist.
    """
    config = OmegaConf.load(conf_dir() / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    config.update(dict(sections or {}))
    for text in typed:
        try:
            override = OverridesParser.create().parse_override(with_home(text))
        except HydraException:
            raise ConfigError(f"'{text}' cannot be read as key=value.") from None
        key = override.key_or_group
        if override.is_delete() or override.is_add() or override.is_sweep_override():
            raise ConfigError(f"'{text}': only values that are there can be changed, each to one value.")
        section, _, name_in_it = key.rpartition(".")
        parent = OmegaConf.select(config, section) if section else config
        if not isinstance(parent, DictConfig):
            raise unknown_key(key, _names(config), section="")  # `data.workers`, as in training, is `workers` here
        if name_in_it not in parent:
            raise unknown_key(key, _names(parent))
        try:
            OmegaConf.update(config, key, override.value())
        except OmegaConfBaseException as error:
            raise ConfigError(f"'{text}' cannot be used: {str(error).splitlines()[0]}.") from None
    return config


def _names(section: DictConfig) -> list[str]:
    return [str(key) for key in section if key != "_target_"]
