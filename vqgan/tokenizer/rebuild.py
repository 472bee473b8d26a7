"""A described tokenizer built again, through classes that are known to be harmless."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import vqgan.backbones
import vqgan.quantizers
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Backbone
from vqgan.config.build import check_values
from vqgan.config.outside import find_in
from vqgan.errors import CheckpointError, ConfigError
from vqgan.quantizers import Quantizer
from vqgan.tokenizer.folder import FORMAT, LONGEST_REASON, compare


def parts_of(
    description: Mapping[str, Any], state: Mapping[str, Tensor], folder: str | Path | None
) -> tuple[Backbone, Quantizer]:
    """Backbone and quantizer of a description; `state` is only compared, so that no false size takes memory.

    Args:
        description: the content of `config.json`.
        state: the tensors of the network.
        folder: with classes that may be built beside this package's own.

    Raises:
        CheckpointError: the description is not of this format, names a class that may not be built, or tensors are
            missing, unknown or of another shape.
    """

    def make() -> tuple[Backbone, Quantizer]:
        parts = [_build(description[key], key, folder) for key in ("backbone", "quantizer")]
        for key, part, kind in zip(("backbone", "quantizer"), parts, (Backbone, Quantizer)):
            if not isinstance(part, kind):
                raise ValueError(f"{key} is a {type(part).__name__}")
        return parts[0], parts[1]

    try:
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']} instead of {FORMAT}")
        with torch.device("meta"):
            expected = Autoencoder(*make()).state_dict()
        compare(expected, state)
        return make()
    except CheckpointError:
        raise
    except Exception as error:  # a hostile description can make the constructors fail in any way
        text = " ".join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(f"The tokenizer's description does not fit: {type(error).__name__}: {text}.") from None


def _build(values: Mapping[str, Any], path: str, folder: str | Path | None) -> Any:
    values = dict(values)
    target = _find(str(values.pop("class")), path, folder)
    parts = {key: value for key, value in values.items() if isinstance(value, dict)}
    check_values(target, {key: value for key, value in values.items() if key not in parts}, path)
    return target(**values | {key: _build(value, f"{path}.{key}", folder) for key, value in parts.items()})


def _find(name: str, path: str, folder: str | Path | None) -> type:
    if "." not in name:
        return classes()[name]
    if folder is None:
        raise CheckpointError(
            f"The tokenizer's {path} is {name}, which is not of this package, and whatever the code of that class says "
            "would be run. If you have it and trust it, name its folder: --parts DIR, or vqgan.load(..., parts=DIR)."
        )
    try:
        return find_in(folder, name, path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def classes() -> dict[str, type]:
    """All backbones and quantizers of this package, by name: the only classes that a description alone can ask for."""
    return {
        c.__name__: c
        for package, kind in ((vqgan.backbones, Backbone), (vqgan.quantizers, Quantizer))
        for module in _modules(package)
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, kind) and not inspect.isabstract(c)
    }


def _modules(package: ModuleType) -> list[ModuleType]:
    return [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
