"""The values of a command that works with a finished run: its yaml, and what was typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vqgan.config import conf_dir, unknown_key
from vqgan.errors import ConfigError


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
    config = DictConfig({**config, **(sections or {})})
    for text in typed:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            raise ConfigError(f"'{text}' cannot be read as key=value.") from None
        key = override.key_or_group
        if override.is_delete() or override.is_add() or override.is_sweep_override():
            raise ConfigError(f"'{text}': only values that are there can be changed, each to one value.")
        parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        if not isinstance(parent, DictConfig) or key.rpartition(".")[2] not in parent:
            raise unknown_key(
                key, [k for k in (parent if isinstance(parent, DictConfig) else config) if k != "_target_"]
            )
        try:
            OmegaConf.update(config, key, override.value())
        except OmegaConfBaseException as error:
            raise ConfigError(f"'{text}' cannot be used: {str(error).splitlines()[0]}.") from None
    return config
