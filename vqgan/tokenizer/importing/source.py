"""What a project left: a checkpoint, and the yaml or json that it was trained with. Both may be a stranger's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from vqgan.errors import CheckpointError, ConfigError
from vqgan.files.plain_data import read_plain
from vqgan.files.reading import LARGEST_CONFIG, LONGEST_REASON, read_json, read_yaml

# Of several files of weights in a folder the one that a library would take.
PREFERRED = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin", "model.safetensors", "model.ckpt")
WEIGHTS, CONFIGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin"), (".yaml", ".yml", ".json")
INNER = ("model", "params", "init_args", "first_stage_config")  # sections that a model's values stand in


@dataclass
class Source:
    """A checkpoint's content and its settings, as plain data.

    Args:
        content: what the file holds, tensors by name or sections of them.
        settings: of the model; empty where there is no config.
    """

    content: Mapping[str, Any]
    settings: Mapping[str, Any]

    def state(self, *sections: str) -> dict[str, Tensor]:
        """The tensors of the first of these sections that is there; those of the file itself if none is.

        Raises:
            CheckpointError: there are none.
        """
        found = next((self.content[section] for section in sections if section in self.content), self.content)
        state = dict(dict.items(found)) if isinstance(found, dict) else {}  # whatever its methods were replaced by
        if not state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            raise CheckpointError(f"The checkpoint holds no state dict (looked for: {', '.join(sections)}).")
        return state

    def section(self, *path: str) -> dict[str, Any]:
        """The settings under a path of keys; empty if it is not there."""
        node: Any = self.settings
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
        return dict(node) if isinstance(node, Mapping) else {}

    def value(self, key: str, default: Any, section: Mapping[str, Any] | None = None) -> Any:
        """A setting of the default's type (a whole number may stand for a fraction), or the default.

        Raises:
            ConfigError: it is of another type.
        """
        value = (self.settings if section is None else section).get(key, default)
        value = default if value is None else value
        kinds = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise ConfigError(f"The config's {key} must be like {default!r}, but is {str(value)[:100]!r}.")
        return value

    def side(self) -> int:
        """The nominal side of a picture in pixels; 256, as published, where no config says it."""
        side = self.value("resolution", 256, self.section("ddconfig"))
        if not 0 < side < 2**20:
            raise ConfigError(f"ddconfig.resolution must be positive, but is {side}.")
        return int(side)


def read_source(checkpoint: Path, config: Path | None) -> tuple[Source, Path | None]:
    """A checkpoint, or the folder that it is in, and its config: the one given, or the one that lies beside it.

    Returns:
        Both, and which config it was.

    Raises:
        ConfigError: there is no such file, or the config is damaged.
        CheckpointError: it cannot be read as plain data.
    """
    file = _weights_in(checkpoint) if checkpoint.is_dir() else checkpoint
    if not file.is_file():
        raise ConfigError(f"There is no file {file}.")
    if config is None:
        config = _beside(file)
    content = _tensors_of(file) if file.suffix == ".safetensors" else _plain(file)
    given = content.get("args")
    settings = dict(vars(given)) if isinstance(given, argparse.Namespace) else {}
    return Source(content, settings | ({} if config is None else read_settings(config))), config


def read_settings(file: Path) -> dict[str, Any]:
    """The values of the model in a yaml or json: from `model` on, `params` or `init_args`, to the autoencoder's own.

    References (`${name}`) stay text, and nothing is built.

    Raises:
        ConfigError: it is missing, damaged, or no config of a model.
    """
    if not file.is_file():
        raise ConfigError(f"There is no file {file}.")
    try:
        node: Any = read_json(file, LARGEST_CONFIG) if file.suffix == ".json" else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is damaged: {error}.") from None
    node = OmegaConf.to_container(read_yaml(file), resolve=False) if node is None else node
    settings: dict[str, Any] = {}
    while isinstance(node, dict):
        settings |= {str(key): value for key, value in node.items() if key not in INNER}
        node = next((node[key] for key in INNER if isinstance(node.get(key), dict)), None)
    if not settings:
        raise ConfigError(f"{file} holds no config of a model.")
    return settings


def _weights_in(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS)
    for name in PREFERRED:
        if folder / name in files:
            return folder / name
    if len(files) != 1:
        names = ", ".join(file.name for file in files[:5]) or "none"
        raise ConfigError(f"{folder} has not one file of weights but {len(files)} ({names}); name the file.")
    return files[0]


def _beside(file: Path) -> Path | None:
    """The config that lies beside a checkpoint: of the same name, or diffusers' `config.json`."""
    candidates = [*(file.with_suffix(suffix) for suffix in CONFIGS), file.with_name("config.json")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _tensors_of(file: Path) -> dict[str, Any]:
    try:
        return dict(load_file(file))
    except Exception as error:  # a hostile file can make the reader fail in any way
        text = " ".join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(f"{file} is no file of safetensors ({text}).") from None


def _plain(file: Path) -> dict[str, Any]:
    try:
        content = read_plain(file, foreign=True)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} If you trust it, save its state dict alone with the software that wrote it: "
            "torch.save(model.state_dict(), FILE)."
        ) from None
    return dict(dict.items(content)) if isinstance(content, dict) else {}
