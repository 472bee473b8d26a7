"""A trained tokenizer at work: frames to codes and codes to frames, in the same batches with the same bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from vqgan.autoencoder import Autoencoder
from vqgan.errors import ConfigError
from vqgan.frames import to_clips, to_frames
from vqgan.runtime.device import (
    ANOTHER_DEVICE,
    Precision,
    find_device,
    memory_at_work,
    memory_to_begin,
    on_device,
    prepare,
    running_in,
)


@dataclass(frozen=True)
class InferenceSettings:
    """What results depend on beside the weights, in their last bits."""

    batch_frames: int  # that the network takes at once
    precision: Precision


def move_to(tokenizer: Autoencoder, device: str) -> Autoencoder:
    """The tokenizer on its device, in evaluation mode."""
    found = find_device(device, "device")
    torch.backends.cudnn.deterministic = True  # the same codes each time
    with memory_to_begin(ANOTHER_DEVICE):
        prepare(tokenizer, found, channels_last=True)
    return tokenizer.eval()


def refuse_meaningless(values: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise `ConfigError` for values that mean something to a command alone, not to a tokenizer in Python."""
    for key in keys:
        if key in values:
            what = (
                "it works where it is: move it by tokenizer.to(...)" if key == "device" else "that is for the command"
            )
            raise ConfigError(f"{key}={values[key]!r} means nothing to a tokenizer in Python; {what}.")


@torch.no_grad()
def encode_batch(
    tokenizer: Autoencoder, frames: UInt8[Tensor, "frames height width rgb"], work: InferenceSettings
) -> Int[Tensor, "frames rows columns *depth"]:
    """The codes of at most `batch_frames` frames, on the device.

    Raises:
        StorageError: memory ran out.
    """
    device = tokenizer.last_layer.device
    with memory_at_work(device, frames.shape), running_in(work.precision, device):
        # Not `encode`, which would wait for the device to look at values that cannot be out of range.
        return tokenizer.quantize(to_frames(on_device(frames[None], device))).indices[0]


@torch.no_grad()
def decode_batch(
    tokenizer: Autoencoder, codes: Int[Tensor, "frames rows columns *depth"], work: InferenceSettings
) -> UInt8[Tensor, "frames height width rgb"]:
    """The frames that at most `batch_frames` frames' codes stand for, on the CPU.

    Raises:
        StorageError: memory ran out.
        ValueError: a code is not in the codebook.
    """
    device = tokenizer.last_layer.device
    with memory_at_work(device, codes.shape), running_in(work.precision, device):
        return to_clips(tokenizer.decode(codes[None].to(device)))[0].cpu()
