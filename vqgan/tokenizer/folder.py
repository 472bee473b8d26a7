"""A trained tokenizer as a folder of plain data: written by `export` and `import-taming`, read by `load`.

`model.safetensors` holds the autoencoder's tensors, `discriminator.safetensors` (where there is one) the
discriminator's, `config.json` the classes and values of backbone and quantizer. Nothing in them is ever run: a model is
rebuilt through this package's own classes alone, and those of a folder that whoever loads it names.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder
from vqgan.backbones.temporal import temporal_names
from vqgan.errors import CheckpointError, ConfigError, StorageError, missing_extra
from vqgan.files.lock import filling
from vqgan.files.reading import read_json
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.saved import load_config
from vqgan.tokenizer.typed import overrides_for

FORMAT = 2  # of config.json; in 1 there was one class of backbones, which held the latent dimension
LARGEST_DESCRIPTION = 2**20  # bytes
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # that weights may be stored in
MOST_REFERENCES = 4  # from one value of a config to the next
MOST_NESTED = 4  # parts of parts
LONGEST_REASON = 500  # characters of an error that a file from elsewhere can fill
AVERAGE = "autoencoder_average"  # in a checkpoint, beside `autoencoder`
WEIGHTS, DISCRIMINATOR, DESCRIPTION = "model.safetensors", "discriminator.safetensors", "config.json"


def read(source: str | Path, **download: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the autoencoder's tensors of what `load` takes; `download` is as for `snapshot_download`."""
    folder = _folder_of(source, download)
    if (folder / "checkpoints").is_dir():
        return describe(folder), autoencoder_in(_best_of(folder), folder)
    return _read_description(folder / DESCRIPTION), _read_weights(folder / WEIGHTS)


def load_weights(source: str | Path, autoencoder: Autoencoder, discriminator: nn.Module | None) -> None:
    """Start training from a tokenizer's weights, and from its discriminator's where it has one.

    A tokenizer of pictures does for one of clips: what works along time keeps its start then, which changes nothing.

    Raises:
        ConfigError: they are of other networks than the configuration's.
        CheckpointError: see `load`.
    """
    folder = _folder_of(source, {})
    description, state = read(folder)
    ours = autoencoder.state_dict()
    along_time = {name: ours[name] for name in temporal_names(autoencoder)}
    networks: list[tuple[str, nn.Module, dict[str, Tensor]]] = [("autoencoder", autoencoder, along_time | state)]
    critic = discriminator_of(folder)
    if discriminator is not None and critic:
        networks.append(("discriminator", discriminator, critic))
    for name, network, tensors in networks:
        try:
            compare(network.state_dict(), tensors)
            network.load_state_dict(tensors)
        except (RuntimeError, ValueError) as error:
            cure = _cure(description) if name == "autoencoder" else ""
            raise ConfigError(f"init_from={source}: its {name} is not the configuration's. {error}.{cure}") from None


def _cure(description: Mapping[str, Any]) -> str:
    """What to type to have the networks of a description; nothing where that cannot be said, or not in a few words."""
    try:
        typed = shlex.join(overrides_for(description["backbone"], description["quantizer"]) or [])
    except (LookupError, TypeError, ValueError, RecursionError):  # it may be a stranger's
        return ""
    return f" Type what it is made of: {typed}" if 0 < len(typed) < LONGEST_REASON else ""


def describe(run: Path) -> dict[str, Any]:
    """What `config.json` says of the tokenizer that a run trains."""
    if not (run / "config.yaml").exists():
        raise ConfigError(f"There is no run in {run} (no config.yaml).")
    try:
        config = load_config(run)
        assert config is not None
        if "prior" not in config:
            return description_of(part_in(config, "backbone"), part_in(config, "model.quantizer"))
    except (
        ConfigError,
        OmegaConfBaseException,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        AssertionError,
    ) as error:
        raise CheckpointError(f"{run / 'config.yaml'} does not describe a tokenizer: {error}") from None
    raise ConfigError(f"{run} is the run of a prior, and no tokenizer. Name the one of its tokens.")


def part_in(config: DictConfig, section: str) -> dict[str, Any]:
    """The class and the values of a section, where they are plain or refer to plain ones, or are such parts again.

    Raises:
        ValueError: a value is more than that. (References within references could fill any memory.)
    """
    tree: Any = OmegaConf.to_container(config, resolve=False)

    def follow(path: str) -> Any:
        return functools.reduce(lambda node, key: node[key], path.split("."), tree)

    def part(node: Any, path: str, depth: int) -> dict[str, Any]:
        if depth == MOST_NESTED:
            raise ValueError(f"{path} is nested too deeply")
        values = {"class": class_name(str(node["_target_"]))}
        for key, value in node.items():
            for _ in range(MOST_REFERENCES):
                reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
                value = follow(reference[1]) if reference else value
            if isinstance(value, dict):
                value = part(value, f"{path}.{key}", depth + 1)
            elif "${" in str(value):
                raise ValueError(f"{path}.{key} is no plain value")
            if key != "_target_":
                values[str(key)] = value
        return values

    return part(follow(section), section, 0)


def class_name(target: str) -> str:
    """How a description names a class: this package's by their own name, others in full."""
    return target.rpartition(".")[2] if target.startswith("vqgan.") else target


def description_of(backbone: Mapping[str, Any], quantizer: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `config.json`: of each part its class and values."""
    return {"format": FORMAT, "backbone": dict(backbone), "quantizer": dict(quantizer)}


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
        with filling(folder) as aside:
            put(aside, description, state, discriminator)
            (aside / "README.md").write_text(card, encoding="utf-8")
            if discriminator is None:
                (folder / DISCRIMINATOR).unlink(missing_ok=True)  # of another tokenizer, which was here before
    except (OSError, SafetensorError) as error:
        raise StorageError(f"The tokenizer cannot be written to {folder}: {error}.") from None


def put(
    folder: Path,
    description: Mapping[str, Any],
    state: Mapping[str, Tensor],
    discriminator: Mapping[str, Tensor] | None,
) -> None:
    """Write a tokenizer's files but for its card, one after the other, into a folder that is there.

    Raises:
        OSError, SafetensorError: they cannot be written.
    """
    save_file({k: v.contiguous() for k, v in state.items()}, folder / WEIGHTS)
    if discriminator is not None:
        save_file({k: v.contiguous() for k, v in discriminator.items()}, folder / DISCRIMINATOR)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # to be shared; safetensors writes for the owner alone
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def discriminator_of(folder: Path) -> dict[str, Tensor] | None:
    """The discriminator's tensors of a run or an exported folder; None, or none, where there are none.

    Raises:
        CheckpointError: see `load`.
    """
    if (folder / "checkpoints").is_dir():
        return tensors_in(_best_of(folder), "discriminator", folder)
    return _read_weights(folder / DISCRIMINATOR) if (folder / DISCRIMINATOR).exists() else None


def tensors_in(state: Mapping[str, Any], part: str, folder: Path) -> dict[str, Tensor]:
    """A network's tensors in a checkpoint's state; none if it has no such part.

    Raises:
        CheckpointError: there is something else.
    """
    tensors: dict[str, Tensor] = dict(dict.items(state.get(part, {})))  # whatever its own methods were replaced by
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()):
        raise CheckpointError(f"The checkpoint of {folder} holds no {part}.")
    return tensors


def autoencoder_in(state: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """The tensors of the tokenizer in a checkpoint's state: with the average of its weights, where that was taken.

    Raises:
        CheckpointError: there is something else.
    """
    return tensors_in(state, AVERAGE if AVERAGE in state else "autoencoder", folder)


def _best_of(run: Path) -> dict[str, Any]:
    _, state = Checkpoints(run / "checkpoints", keep=1).read_best()
    return state


def _read_description(file: Path) -> dict[str, Any]:
    if not (file.exists() or file.is_symlink()):
        raise ConfigError(f"{file.parent} is neither a run nor an exported tokenizer (it has no {file.name}).")
    try:
        description = read_json(file, LARGEST_DESCRIPTION)
        if description.get("format") == 1:
            backbone = {key: value for key, value in dict(description["backbone"]).items() if key != "latent_dim"}
            description = description_of({"class": "Convolutional", **backbone}, dict(description["quantizer"]))
        return description
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file.parent} is neither a run nor an exported tokenizer ({error}).") from None


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        if not file.is_file():
            raise ValueError(f"{file.name} is missing, or no file")
        return load_file(file)
    except Exception as error:  # a hostile file can make the reader fail in any way
        text = " ".join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(f"{file.parent} is neither a run nor an exported tokenizer ({text}).") from None


def compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` unless tensors have the expected names, shapes and types."""
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = sorted(
        k
        for k in expected.keys() & found.keys()
        if expected[k].shape != found[k].shape or found[k].dtype not in (expected[k].dtype, *PRECISIONS)
    )
    if other:  # the first in full: two numbers tell what two codebooks are
        name = other[0]
        shapes = [" × ".join(map(str, of[name].shape)) or "one number" for of in (found, expected)]
        other[0] = f"{name}: {shapes[0]} there, {shapes[1]} here"
    problems = [
        f"{len(names)} tensors {what} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape or type", other))
        if names
    ]
    if problems:
        raise ValueError("; ".join(problems))


def _folder_of(source: str | Path, download: Mapping[str, Any]) -> Path:
    """The folder of that name here, or what is downloaded of a model of the hub."""
    folder = Path(source).expanduser()
    return folder if folder.is_dir() else _downloaded(str(source), download)


def _downloaded(name: str, values: Mapping[str, Any]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise missing_extra(f"{name} is no folder here; a model of the Hugging Face hub", "hub") from None
    try:
        return Path(snapshot_download(name, allow_patterns=[WEIGHTS, DISCRIMINATOR, DESCRIPTION], **values))
    except Exception as error:  # whatever it is, it is the network's or the hub's
        raise ConfigError(
            f"{name} is no folder here, and no Hugging Face model could be loaded by it ({error})."
        ) from None
