"""The hardware that networks run on."""

from __future__ import annotations

import shutil

import torch
from torch import nn

from vqgan.autoencoder import Autoencoder
from vqgan.errors import ConfigError


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` takes cuda, mps or cpu, the first there is.

    Raises:
        ConfigError: there is no such device here.
    """
    available = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in available or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"trainer.device={name} is not available here; choose one of auto, {', '.join(available)}.")
    return device


def compile_networks(autoencoder: Autoencoder, discriminator: nn.Module | None) -> None:
    """Compile the networks in place; names of parameters stay the same.

    The decoder's last layer stays outside: the adaptive weight needs its gradient by itself.

    Raises:
        ConfigError: no C++ compiler is found.
    """
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl")):
        raise ConfigError("trainer.compile=true needs a C++ compiler, and none is found; install one or leave it out.")
    autoencoder.encoder.compile()
    autoencoder.decoder.features = torch.compile(autoencoder.decoder.features)  # type: ignore[method-assign]
    if discriminator is not None:
        discriminator.compile()
