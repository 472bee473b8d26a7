"""From yaml to objects, checked on the way."""

from __future__ import annotations

import collections.abc
import dataclasses
import difflib
import inspect
import pkgutil
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable
from omegaconf import Container, DictConfig, Node, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from omegaconf.resolvers import oc

from vqgan.config.keys import SECTIONS, TOP_LEVEL, of_kind
from vqgan.config.moved import told, with_moved_classes
from vqgan.config.versions import register_resolver
from vqgan.errors import ConfigError, InvalidValueError, check, missing_extra

# What brings choices of Hydra's own groups: `pip install "vqgan[EXTRA]"`.
EXTRAS = {
    "hydra/launcher": {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"},
}
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
WORDS_FOR_MANY = {int: "whole numbers", float: "numbers", str: "texts"}


def conf_dir() -> Path:
    """The folder `conf`: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next(d for d in (package / "conf", package.parent / "conf") if d.is_dir())


def unknown_key(
    key: str, choices: Iterable[str], deeper: Iterable[str] = (), section: str | None = None
) -> ConfigError:
    """The error for a key that does not exist, with its nearest neighbour and all that do.

    Args:
        key: that was typed.
        choices: its neighbours.
        deeper: full keys of values further down; those that end with `key` are what was meant.
        section: of the choices; None for that of the key.
    """
    own, _, name = key.rpartition(".")
    parent = own if section is None else section
    names = sorted(str(c) for c in choices)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{f'{parent}.' if parent else ''}{near[0]}'?" if near else ""
    meant = [f"'{full}'" for full in deeper if full.endswith(f".{key}")]
    if meant:  # the commonest slip: `resolution=` for `data.resolution=`
        hint = f" Did you mean {' or '.join(meant)}?"
    hint = told(key) or hint
    return ConfigError(f"Unknown key '{key}'.{hint} {f'Keys of {parent!r}' if parent else 'Keys'}: {', '.join(names)}.")


def unknown_choice(
    group: str, choice: str, choices: Iterable[str] | None, arguments: Iterable[str] = ()
) -> ConfigError:
    """The error for a group's choice that does not exist, with its nearest neighbour and all that do.

    Args:
        group: of choices.
        choice: that is missing.
        choices: that there are; null for what is in the group's folder.
        arguments: that were typed.
    """
    extra = EXTRAS.get(group, {}).get(choice)
    if extra is not None:
        typed = next((argument for argument in arguments if argument.startswith(f"{group}=")), f"{group}={choice}")
        return missing_extra(typed, extra)  # it may be a choice of ours, which starts from that one
    files = (file.stem for file in (conf_dir() / group).glob("*.yaml"))
    names = sorted({*(choices or files), *EXTRAS.get(group, {})})
    near = difflib.get_close_matches(choice, names, n=1)
    hint = f" Did you mean {group}={near[0]}?" if near else ""
    return ConfigError(f"{group}={choice}: there is no such choice.{hint} Choices of {group}: {', '.join(names)}.")


def unresolvable(error: OmegaConfBaseException, path: str = "The configuration") -> ConfigError:
    """The error for a value that is missing (`???`) or refers to something that does not exist."""
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"{error.full_key} has no value; give one on the command line: {error.full_key}=...")
    key = "run_dir" if error.full_key in ("hydra.run.dir", "hydra.sweep.dir") else error.full_key or path
    reason = str(error).splitlines()[0].rstrip(".")
    return ConfigError(f"{key} cannot be resolved: {reason}.{told(reason)}")


def values_of(node: DictConfig, path: str) -> dict[str, Any]:
    """The plain values of a config node, interpolations resolved.

    Raises:
        ConfigError: a value is missing (`???`) or an interpolation points nowhere.
    """
    try:
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise unresolvable(error, path) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in with_moved_classes(values).items()}


def check_top_level(config: DictConfig) -> None:
    """Check all that can be checked before anything is built: keys, types, missing values, interpolations.

    Ranges are the constructors' business.

    Raises:
        ConfigError: a key is unknown (a typo in an experiment, say) or missing, or a value has the wrong type.
    """
    keys = of_kind(TOP_LEVEL, config)
    for key in config:
        if key == "experiment":
            raise ConfigError(
                "An experiment's file must begin with '# @package _global_'; else its values are not used."
            )
        if key == "sweep":
            raise ConfigError("A study's file must begin with '# @package hydra.sweeper'; else its values are unused.")
        if key not in keys:
            raise unknown_key(str(key), keys)
    for key in keys:
        if key not in config:
            recipe = "prior" if "prior" in config else "train"
            raise ConfigError(f"The configuration has no '{key}'; compose it from conf/{recipe}.yaml.")
    values = values_of(config, "The configuration")
    seed, name = values["seed"], values["name"]
    check(_fits(seed, int) and 0 <= seed < 2**31, "seed", seed, "a whole number in [0, 2^31)")
    check(isinstance(name, str) and bool(name), "name", name, _text_for("name", name))
    for key in ("allow_other_data", "allow_other_processes"):
        check(isinstance(values[key], bool), key, values[key], "true or false")
    for key in of_kind(SECTIONS, values):
        check(isinstance(values[key], dict), key, values[key], "a section of values")
    _check_sections(values)


def _check_sections(values: dict[str, Any]) -> None:
    sections = of_kind(SECTIONS, values)
    nodes = {key: values[key] for key in sections if key not in ("model", "discriminator_optimizer", "logger")}
    if "model" in sections:
        for key in values["model"]:
            if key != "quantizer":
                raise unknown_key(f"model.{key}", ["quantizer"])
        nodes["model.quantizer"] = values["model"].get("quantizer")
        nodes["discriminator_optimizer"] = discriminator_optimizer_values(values)
    loggers = dict(values["logger"])
    private = loggers.pop("private", None)
    check(isinstance(private, bool), "logger.private", private, "true or false")
    nodes |= {f"logger.{key}": node for key, node in loggers.items()}
    for path, node in nodes.items():
        _checked(node, path)


@dataclasses.dataclass(frozen=True)
class _Node:
    """A section of a config that names a class, with keys that its constructor has and values of their types."""

    path: str
    target: type
    name: str  # of the class, as the config has it
    values: Mapping[str, Any]  # the plain ones, without `_target_`
    nested: Mapping[str, _Node | Mapping[str, _Node]]  # sections, and sections of sections by name


def _checked(values: object, path: str) -> _Node:
    """Check a section and those inside it.

    `check_top_level` does so for all of a run's before the first is built, which can take hours; `build` for its own,
    whoever calls it. Either takes milliseconds.
    """
    if not isinstance(values, dict):
        raise InvalidValueError(path, values, "a section with a _target_")
    target = find_class(values.get("_target_"), path)
    parameters = _parameters(target)
    known = {key: value for key, value in values.items() if key in parameters}
    for key in values:
        if key != "_target_" and key not in known:
            raise unknown_key(_at(path, key), known)
    nested: dict[str, _Node | Mapping[str, _Node]] = {}
    for key, value in known.items():
        if _is_section(value):
            nested[key] = _checked(value, _at(path, key))
        elif isinstance(value, dict) and value and all(map(_is_section, value.values())):
            nested[key] = {name: _checked(section, f"{_at(path, key)}.{name}") for name, section in value.items()}
    plain = {key: value for key, value in known.items() if key not in nested}
    _check_types(target, plain, path)
    return _Node(path, target, values["_target_"], plain, nested)


def _is_section(value: object) -> bool:
    return isinstance(value, dict) and "_target_" in value


def discriminator_optimizer_values(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """The values of the discriminator's optimizer: the optimizer's, but for what it does differently."""
    return {**config["optimizer"], **config["discriminator_optimizer"]}


class _Shown(DictConfig):
    """A config that is resolved to be shown: where a value comes from the environment, its name stands."""


def _env(name: str, *default: Any, _root_: DictConfig) -> Any:
    return f"<environment: {name}>" if isinstance(_root_, _Shown) else oc.env(name, *default)


def _decode(value: Any, *, _parent_: Container, _node_: Node, _root_: DictConfig) -> Any:
    return value if isinstance(_root_, _Shown) else oc.decode(value, _parent_, _node_)  # a name is not to be decoded


def public_values(config: DictConfig) -> dict[str, Any]:
    """The values of a config as plain data; what comes from the environment is named, never shown."""
    # For every other config these two do what OmegaConf's own do, so they stay.
    register_resolver("oc.env", _env)
    register_resolver("oc.decode", _decode)
    values = OmegaConf.to_container(_Shown(OmegaConf.to_container(config, resolve=False)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in with_moved_classes(values).items()}


def build(node: DictConfig, path: str, **parts: Any) -> Any:
    """Build the class that `node._target_` names from the node's values.

    Nodes inside it that have a `_target_` are built first; `parts` are objects that the caller adds (they
    take the place of a node of the same name, which is then not built).

    Raises:
        ConfigError: exit code 2, naming the yaml key: no such class, a class that configs may not build, an
            unknown key, a value of the wrong type, or one out of the range that the constructor states.
    """
    if not isinstance(node, DictConfig):
        raise InvalidValueError(path, node, "a section with a _target_")
    values = values_of(node, path)
    given = {key for key in values if key in parts and not isinstance(values[key], dict | None)}
    if given:
        raise unknown_key(_at(path, min(given)), values.keys() - given - {"_target_"})
    return _build(_checked(values, path), parts)


def _build(node: _Node, parts: Mapping[str, Any]) -> Any:
    for name, parameter in _parameters(node.target).items():
        if parameter.default is parameter.empty and name not in {**node.values, **node.nested, **parts}:
            key = _at(node.path, name)
            raise ConfigError(f"{key} is missing; give it a value: +{key}=...")
    plain = {key: value for key, value in node.values.items() if key not in parts}
    built = {
        key: _build(inner, {}) if isinstance(inner, _Node) else {name: _build(one, {}) for name, one in inner.items()}
        for key, inner in node.nested.items()
        if key not in parts
    }
    try:
        return node.target(**plain, **built, **parts)
    except InvalidValueError as error:
        raise error.under(node.path) from None
    except (TypeError, ValueError) as error:
        if node.target.__module__.startswith("vqgan."):
            raise
        refused = [f"{_at(node.path, key)}={v}" for key, v in plain.items() if _ends_with(str(error), v)]
        what = f"{refused[0]} is refused" if len(refused) == 1 else f"{node.path} cannot be built"
        raise ConfigError(f"{what} by {node.name}: {error}.") from error


def _ends_with(message: str, value: object) -> bool:
    """Whether a library's complaint is of that value: it knows no yaml keys, but `Invalid learning rate: -1`."""
    return any(message.endswith(f" {part}") for part in (value if isinstance(value, list) else [value]))


def find_class(name: object, path: str) -> type:
    """The class of that name, if it is one that a config may build.

    Those are this package's and what derives from them, networks, optimizers and data sets.

    Raises:
        ConfigError: there is no such class, or it is none of these.
    """
    import torch  # not at the top: composing a config must not wait for it

    if name is None:
        raise ConfigError(f"{path} has no _target_, the full name of the class that it describes.")
    try:
        target = pkgutil.resolve_name(str(name))  # Hydra's own would log the failure as well
    except Exception as error:
        own = " If it is in a folder of your own, name that: --config-dir DIR to train, --parts DIR afterwards."
        hint = own if isinstance(error, ModuleNotFoundError) else ""
        raise ConfigError(
            f"{path}._target_ must be the full name of a class, but is {name!r} ({error}).{hint}"
        ) from None
    buildable = (torch.nn.Module, torch.optim.Optimizer, torch.utils.data.Dataset)
    is_class = inspect.isclass(target)
    is_ours = is_class and any(base.__module__.startswith("vqgan.") for base in target.__mro__)
    if not is_class or not (is_ours or issubclass(target, buildable)):
        raise ConfigError(
            f"{path}._target_ is {name!r}, which a config may not build: only this package's classes, what derives "
            "from them, and subclasses of torch.nn.Module, torch.optim.Optimizer and torch.utils.data.Dataset."
        )
    return target


def _parameters(target: type) -> dict[str, inspect.Parameter]:
    """The named ones of a constructor; a network without one of its own has `*args, **kwargs`."""
    parameters = inspect.signature(target).parameters.items()
    return {name: p for name, p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def check_values(target: type, values: dict[str, Any], path: str) -> None:
    """Check keys and types of a constructor's values, all of them plain.

    Raises:
        ConfigError: a key is unknown, or a value has another type.
    """
    parameters = _parameters(target)
    for key in values:
        if key not in parameters:
            raise unknown_key(_at(path, key), parameters)
    _check_types(target, values, path)


def _check_types(target: type, values: dict[str, Any], path: str) -> None:
    hints = typing.get_type_hints(target if dataclasses.is_dataclass(target) else target.__init__)  # type: ignore[misc]
    for key, value in values.items():
        hint = hints.get(key, Any)
        if not _fits(value, hint):
            words = _in_words(hint) or _section_in_words(_at(path, key))
            raise InvalidValueError(
                _at(path, key), value, _text_for(_at(path, key), value) if words == "text" else words
            )


def _at(path: str, key: str) -> str:
    """The full key; the values of a command have no section around them."""
    return f"{path}.{key}" if path else key


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if isinstance(value, list) and origin is tuple and ... not in arguments:
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if isinstance(value, list) and origin in (list, tuple, collections.abc.Sequence):
        return all(_fits(element, arguments[0]) for element in value)
    if isinstance(value, bool) and hint in (int, float):
        return False
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as in Python


def _in_words(hint: Any) -> str:
    """What a value of that type looks like in yaml; empty for what yaml cannot hold, as tensors."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(word for a in arguments if (word := _in_words(a))))
    if origin in (list, tuple, collections.abc.Sequence):
        count = f"{len(arguments)} " if origin is tuple and ... not in arguments else ""
        element = next((a for a in (arguments[0], *typing.get_args(arguments[0])) if a in WORDS_FOR_MANY), None)
        return f"a list of {count}{WORDS_FOR_MANY[element] if element else 'values'}"
    return WORDS.get(hint, "")


def _section_in_words(key: str) -> str:
    """What to type where a section is asked for."""
    group = key.replace(".", "/")
    choices = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    return f"a choice ({', '.join(f'{group}={name}' for name in choices)})" if choices else "a section with a _target_"


def _text_for(key: str, value: object) -> str:
    """What to write where text is asked for and yaml understood something else."""
    return f"text (quoted: '{key}=\"{value}\"')" if isinstance(value, int | float) else "text"
