"""From yaml to objects, checked on the way: the only place that calls Hydra's `instantiate`."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra
from beartype import BeartypeConf
from beartype.door import is_bearable
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from omegaconf.resolvers import oc

from vqgan.errors import ConfigError, InvalidValueError, check

TOP_LEVEL = (
    "name", "seed", "run_dir", "resume",
    "model", "backbone", "discriminator", "loss", "optimizer", "discriminator_optimizer", "schedule",
    "data", "logger", "trainer",
)  # fmt: skip


def conf_dir() -> Path:
    """The folder `conf`: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(d for d in (package / "conf", package.parent / "conf") if d.is_dir())


def unknown_key(key: str, choices: Iterable[str]) -> ConfigError:
    """The error for a key that does not exist, with its nearest neighbour and all that do."""
    parent, _, name = key.rpartition(".")
    names = sorted(str(c) for c in choices)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{f'{parent}.' if parent else ''}{near[0]}'?" if near else ""
    return ConfigError(f"Unknown key '{key}'.{hint} {f'Keys of {parent!r}' if parent else 'Keys'}: {', '.join(names)}.")


def values_of(node: DictConfig, path: str) -> dict[str, Any]:
    """The plain values of a config node, interpolations resolved.

    Raises:
        ConfigError: a value is missing (`???`) or an interpolation points nowhere.
    """
    try:
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError(
            f"{error.full_key} has no value; give one on the command line: {error.full_key}=..."
        ) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path} cannot be resolved: {str(error).splitlines()[0]}.") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def check_top_level(config: DictConfig) -> None:
    """Check that a config has all groups and settings, and nothing else.

    Raises:
        ConfigError: a key is unknown (a typo in an experiment, say) or missing, or a setting is out of range.
    """
    for key in config:
        if key not in TOP_LEVEL:
            raise unknown_key(str(key), TOP_LEVEL)
    for key in TOP_LEVEL:
        if key not in config:
            raise ConfigError(f"The configuration has no '{key}'; compose it from conf/train.yaml.")
    check(isinstance(config.seed, int) and 0 <= config.seed < 2**31, "seed", config.seed, "a whole number in [0, 2^31)")
    check(isinstance(config.name, str) and bool(config.name), "name", config.name, "text")


def public_values(config: DictConfig) -> dict[str, Any]:
    """The values of a config as plain data; what comes from the environment is named, never shown."""
    masked = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    OmegaConf.register_new_resolver("oc.env", lambda name, *_: f"<environment: {name}>", replace=True)
    try:
        values = OmegaConf.to_container(masked, resolve=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def build(node: DictConfig, path: str, **parts: Any) -> Any:
    """Build the class that `node._target_` names from the node's values.

    Nodes inside it that have a `_target_` are built first; `parts` are objects that the caller adds (they
    take the place of a node of the same name, which is then not built).

    Raises:
        ConfigError: exit code 2, naming the yaml key: no such class, a class that configs may not build, an
            unknown key, a value of the wrong type, or one out of the range that the constructor states.
    """
    return _build(values_of(node, path), path, parts)


def _build(values: dict[str, Any], path: str, parts: dict[str, Any]) -> Any:
    target = _find_class(values.get("_target_"), path)
    parameters = inspect.signature(target).parameters
    for key in values:
        if key != "_target_" and key not in parameters:
            raise unknown_key(f"{path}.{key}", (p for p in parameters if p not in parts))
    plain = {k: v for k, v in values.items() if k not in parts}
    built = {k: _build(v, f"{path}.{k}", {}) for k, v in plain.items() if isinstance(v, dict) and "_target_" in v}
    plain = {k: v for k, v in plain.items() if k not in built}
    _check_types(target, plain, path)
    try:
        return hydra.utils.instantiate(plain, _partial_=True, _convert_="all")(**built, **parts)
    except InvalidValueError as error:
        raise error.under(path) from None
    except (TypeError, ValueError) as error:
        if target.__module__.startswith("vqgan."):
            raise
        raise ConfigError(f"{path} cannot be built: {error}.") from error


def _find_class(name: object, path: str) -> type:
    """The class of that name, if it is one that a config may build: ours, or a network, optimizer or data set."""
    import torch  # not at the top: composing a config must not wait for it

    buildable = (torch.nn.Module, torch.optim.Optimizer, torch.utils.data.Dataset)
    try:
        target = hydra.utils.get_object(str(name))
    except Exception as error:
        raise ConfigError(f"{path}._target_ must be the full name of a class, but is {name!r} ({error}).") from None
    own = getattr(target, "__module__", "").startswith("vqgan.")
    if not inspect.isclass(target) or not (own or issubclass(target, buildable)):
        raise ConfigError(
            f"{path}._target_ is {name!r}, which a config may not build: only this package's classes and "
            "subclasses of torch.nn.Module, torch.optim.Optimizer and torch.utils.data.Dataset."
        )
    return target


def _check_types(target: type, values: dict[str, Any], path: str) -> None:
    hints = typing.get_type_hints(target if dataclasses.is_dataclass(target) else target.__init__)  # type: ignore[misc]
    for key, value in values.items():
        hint = hints.get(key, Any)
        if not any(_fits(candidate, hint) for candidate in (value, _as_tuple(value))):
            raise InvalidValueError(f"{path}.{key}", value, _in_words(hint))


def _fits(value: object, hint: Any) -> bool:
    if isinstance(value, bool) and hint in (int, float):
        return False
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in Python


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    arguments = typing.get_args(hint)
    if arguments and typing.get_origin(hint) not in (list, tuple) and "Sequence" not in str(hint):
        return " or ".join(dict.fromkeys(_in_words(a) for a in arguments))
    return words.get(hint, str(hint).removeprefix("collections.abc.").removeprefix("typing."))
