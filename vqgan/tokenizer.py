"""A trained tokenizer as a folder of plain data: written by `export` and `import-taming`, read by `load`.

`model.safetensors` holds the autoencoder's tensors, `discriminator.safetensors` (where there is one) the
discriminator's, `config.json` the sizes. Nothing in them is ever run: a model is rebuilt through this package's own
classes alone.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import vqgan.quantizers
from vqgan.autoencoder import Autoencoder
from vqgan.blocks import Backbone
from vqgan.checkpoint import Checkpoints
from vqgan.config import values_of
from vqgan.errors import CheckpointError, ConfigError, StorageError
from vqgan.quantizers import Quantizer
from vqgan.run_folder import load_config

FORMAT = 1  # of config.json
WEIGHTS, DISCRIMINATOR, DESCRIPTION = "model.safetensors", "discriminator.safetensors", "config.json"


def load(source: str | Path) -> Autoencoder:
    """A trained tokenizer, in evaluation mode on the CPU.

    Args:
        source: a run folder (its best checkpoint is taken), an exported folder, or the id of a Hugging Face model.

    Raises:
        CheckpointError: it is damaged, does not fit together, or would need to run code.
        ConfigError: there is no such thing.
    """
    description, state = read(source)
    network = rebuild(description, state)
    network.load_state_dict(state)
    return network.eval()


def read(source: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the autoencoder's tensors of what `load` takes."""
    folder = Path(source)
    if (folder / "checkpoints").is_dir():
        _, state = Checkpoints(folder / "checkpoints", keep=1).read_best()
        return describe(folder), state["autoencoder"]
    if not folder.is_dir():
        folder = _downloaded(str(source))
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        return description, load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is neither a run nor an exported tokenizer ({error}).") from None


def load_weights(source: str | Path, autoencoder: Autoencoder, discriminator: nn.Module | None) -> None:
    """Start training from a tokenizer's weights, and from its discriminator's where it has one.

    Raises:
        ConfigError: they are of other networks than the configuration's.
        CheckpointError: see `load`.
    """
    _, state = read(source)
    networks: list[tuple[str, nn.Module, dict[str, Tensor]]] = [("autoencoder", autoencoder, state)]
    critic = _discriminator_of(Path(source))
    if discriminator is not None and critic is not None:
        networks.append(("discriminator", discriminator, critic))
    for name, network, tensors in networks:
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ConfigError(f"init_from={source}: its {name} is not the configuration's. {error}") from None


def describe(run: Path) -> dict[str, Any]:
    """What `config.json` says of the tokenizer that a run trains."""
    config = load_config(run)
    if config is None:
        raise ConfigError(f"There is no run in {run} (no config.yaml).")
    quantizer = values_of(config.model.quantizer, "model.quantizer")
    backbone = values_of(config.backbone, "backbone")
    del backbone["_target_"]
    return description_of(backbone, quantizer.pop("_target_").rpartition(".")[2], quantizer)


def description_of(backbone: Mapping[str, Any], quantizer: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `config.json`: sizes, and the name and values of the quantizer."""
    return {"format": FORMAT, "backbone": dict(backbone), "quantizer": {"class": quantizer, **values}}


def rebuild(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> Autoencoder:
    """An autoencoder of the described sizes; `state` is only compared, so that no false size takes memory.

    Raises:
        CheckpointError: the description is not of this format, or tensors are missing, unknown or of another shape.
    """
    try:
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']} instead of {FORMAT}")
        values = dict(description["quantizer"])
        quantizer = quantizer_classes()[values.pop("class")]
        backbone = Backbone(**description["backbone"])
        with torch.device("meta"):
            expected = Autoencoder(backbone, quantizer(**values)).state_dict()
        _compare(expected, state)
        return Autoencoder(backbone, quantizer(**values))
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError, RuntimeError) as error:
        raise CheckpointError(f"The tokenizer's description does not fit: {type(error).__name__}: {error}.") from None


def quantizer_classes() -> dict[str, type[Quantizer]]:
    """All quantizers of this package, by name: the only classes that a description can ask for."""
    package = vqgan.quantizers
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found = [value for module in modules for value in vars(module).values() if inspect.isclass(value)]
    return {c.__name__: c for c in found if issubclass(c, Quantizer) and not inspect.isabstract(c)}


def write(
    folder: Path,
    description: Mapping[str, Any],
    state: Mapping[str, Tensor],
    discriminator: Mapping[str, Tensor] | None,
    card: str,
) -> None:
    """Write a tokenizer's folder.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS)
        if discriminator is not None:
            save_file({k: v.contiguous() for k, v in discriminator.items()}, folder / DISCRIMINATOR)
        for file in folder.glob("*.safetensors"):
            file.chmod(0o644)  # to be shared; safetensors writes for the owner alone
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n")
        (folder / "README.md").write_text(card)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"The tokenizer cannot be written to {folder}: {error}.") from None


def _discriminator_of(folder: Path) -> dict[str, Tensor] | None:
    if (folder / "checkpoints").is_dir():
        _, state = Checkpoints(folder / "checkpoints", keep=1).read_best()
        return state.get("discriminator")
    return load_file(folder / DISCRIMINATOR) if (folder / DISCRIMINATOR).exists() else None


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = sorted(k for k in expected.keys() & found.keys() if expected[k].shape != found[k].shape)
    problems = [
        f"{len(names)} tensors {what} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", other))
        if names
    ]
    if problems:
        raise ValueError("; ".join(problems))


def _downloaded(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(
            f"{name} is no folder here. If it is a Hugging Face model, install the extra: pip install 'vqgan[hub]'."
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, DISCRIMINATOR, DESCRIPTION]))
    except Exception as error:  # whatever it is, it is the network's or the hub's
        raise ConfigError(
            f"{name} is no folder here, and no Hugging Face model could be loaded by it ({error})."
        ) from None
