"""Sizes of networks, read off the shapes of their tensors, and tensors for what a network does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqgan.errors import CheckpointError, ConfigError
from vqgan.tokenizer.importing.imported import SHOWN, Names, Part

MOST_PROJECTED = 64  # numbers of a latent without a table of codes


def convolutional(names: Names, side: int, norm_groups: int = 32) -> Part:
    """The sizes of `Convolutional`, read off shapes.

    Raises:
        CheckpointError: tensors that would say them are missing.
    """
    channels, multipliers, blocks = pyramid(names)
    layers = [f"attn.0.{layer}.weight" for layer in ("q", "k", "v", "proj_out")]
    levels = range(len(multipliers))
    attention = [i for i in levels if names.has(*(f"encoder.down.{i}.{layer}" for layer in layers))]
    return {
        "class": "Convolutional",
        "resolution": multiple(side, len(multipliers)),
        "image_channels": names.width("decoder.conv_out.weight", "decoder.conv_out.bias"),
        "channels": channels,
        "channel_multipliers": multipliers,
        "residual_blocks": blocks,
        "attention_resolutions": [multiple(side, len(multipliers)) // 2**i for i in attention],
        "norm_groups": norm_groups,
        "dropout": 0.0,
        "latent_channels": names.width("encoder.conv_out.weight", "encoder.conv_out.bias"),
    }


def pyramid(names: Names, first: str = "encoder.conv_in.weight") -> tuple[int, list[int], int]:
    """Width of the first level, multiples of it of all levels, and blocks of each, of an encoder like the reference's.

    Args:
        names: of all tensors.
        first: our name of the first convolution.

    Raises:
        CheckpointError: the widths are no multiples, or tensors that would say them are missing.
    """
    channels = names.width(first, "encoder.down.0.block.0.norm1.weight", "encoder.down.0.block.0.norm1.norm.weight")
    parts = (".conv2.weight", ".conv1.weight", ".norm2.weight")
    blocks = [f"encoder.down.{i}.block.0" for i in range(names.count("encoder.down.{}.block.0"))]
    widths = {names.theirs(block + parts[0]): names.width(*(block + part for part in parts)) for block in blocks}
    if not widths or channels < 1 or any(width % channels for width in widths.values()):
        said = ", ".join(f"{name} has {width}" for name, width in list(widths.items())[:SHOWN]) or "there is none"
        raise CheckpointError(
            f"{names.theirs(first)} has {channels} channels, of which every level has a multiple; but {said}."
        )
    return channels, [width // channels for width in widths.values()], names.count("encoder.down.0.block.{}")


def without_attention(backbone: Part) -> dict[str, Tensor]:
    """Zeros for attention in the middle: what it adds is then nothing, and no gradient would change that."""
    channels = backbone["channels"] * backbone["channel_multipliers"][-1]
    shapes = dict.fromkeys(("q", "k", "v", "proj_out"), (channels, channels, 1, 1)) | {"norm": (channels,)}
    given = {}
    for layer, shape in shapes.items():
        for network in ("encoder", "decoder"):
            # Not of that size in memory: it is only read off the file, and not compared with anything yet.
            given[f"{network}.mid.attn_1.{layer}.weight"] = torch.zeros(()).expand(shape)
            given[f"{network}.mid.attn_1.{layer}.bias"] = torch.zeros(()).expand(channels)
    return given


def identities(channels: int) -> dict[str, Tensor]:
    """Projections that change nothing, for networks that have none around their quantizer.

    Raises:
        CheckpointError: there are more channels than such a network can have.
    """
    if not 0 < channels <= MOST_PROJECTED:
        raise CheckpointError(f"The checkpoint's latents have {channels} channels, not 1 to {MOST_PROJECTED}.")
    weight, bias = torch.eye(channels)[..., None, None], torch.zeros(channels)
    both = ("quant_conv", "post_quant_conv")
    return {f"{name}.weight": weight for name in both} | {f"{name}.bias": bias for name in both}


def multiple(side: int, levels: int) -> int:
    """A nominal side that so many levels can halve: the given one where it is a multiple."""
    step = 2 ** (min(levels, 20) - 1)
    return side if side % step == 0 else step


def codebook(names: Names) -> dict[str, int]:
    """The sizes of a table of codes.

    Raises:
        CheckpointError: there is none.
    """
    table = names.state.get(names.theirs("quantizer.codebook"))
    if table is None or table.ndim != 2:
        raise CheckpointError(f"The checkpoint has no table of codes {names.theirs('quantizer.codebook')}.")
    return {"codebook_size": table.shape[0], "latent_dim": table.shape[1]}


def agree(config: Mapping[str, Any], backbone: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    """Compare a config with the sizes that were read off shapes; `keys` are our names of its own.

    Raises:
        ConfigError: it is of another checkpoint.
    """
    other = [
        f"{key}={str(config[key])[:100]}, the checkpoint has {backbone[ours]}"
        for key, ours in keys.items()
        if key in config and config[key] != backbone[ours]
    ]
    if other:
        raise ConfigError(f"The config is not this checkpoint's: {'; '.join(other)}.")
