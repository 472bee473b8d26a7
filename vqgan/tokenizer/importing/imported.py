"""A checkpoint in our names: each of our tensors is one of theirs, and every one that does not fit is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vqgan.autoencoder import Autoencoder
from vqgan.config.build import check_values
from vqgan.discriminators import PatchGAN
from vqgan.errors import CheckpointError, ConfigError
from vqgan.runtime.device import memory_to_begin
from vqgan.tokenizer.folder import PRECISIONS, compare, description_of
from vqgan.tokenizer.rebuild import classes
from vqgan.tokenizer.tokenizer import Tokenizer

Part = dict[str, Any]  # a class and its values, as `config.json` has them
CODEBOOK = {"quantizer.codebook": "quantize.embedding.weight"}  # what all who have a table call it
SHOWN = 10  # names in a message


@dataclass
class Imported:
    """A checkpoint of another project's, in our names."""

    autoencoder: Tokenizer
    discriminator: dict[str, Tensor] = field(default_factory=dict)  # empty if there is none of ours
    critic: Part = field(default_factory=dict)  # and its sizes


@dataclass
class Names:
    """Which of their tensors each of ours is.

    Args:
        state: theirs.
        theirs: their name of ours.
        given: ours that they do not have.
        known: how names of theirs begin that have no counterpart: losses, perceptual networks, counters.
        spare: names of theirs for what is taken from elsewhere: weights of which the average is taken.
    """

    state: Mapping[str, Tensor]
    theirs: Callable[[str], str]
    given: Mapping[str, Tensor] = field(default_factory=dict)
    known: Collection[str] = ()
    spare: Collection[str] = frozenset()

    def has(self, *names: str) -> bool:
        """Whether any of these, in our names, is there."""
        return any(self.theirs(name) in self.state for name in names)

    def width(self, *names: str) -> int:
        """The first size of the first of these that is there.

        Raises:
            CheckpointError: none is.
        """
        found = next((self.state[self.theirs(name)] for name in names if self.has(name)), None)
        if found is None or found.ndim == 0:
            raise CheckpointError(f"The checkpoint has no tensor {self.theirs(names[0])}.")
        return found.shape[0]

    def count(self, block: str) -> int:
        """How many blocks there are from the 0th on; `block` has `{}` for their number."""
        number = 0
        while self.has(*(block.format(number) + part for part in (".conv1.weight", ".conv2.weight", ".norm2.weight"))):
            number += 1
        return number


def assemble(backbone: Part, quantizer: Part, names: Names) -> Tokenizer:
    """The tokenizer of these parts with their weights, in evaluation mode.

    Raises:
        CheckpointError: tensors are missing, left over or of another shape; they are named as the checkpoint does.
        ConfigError: there is no network of such sizes here.
    """
    description = description_of(backbone, quantizer)
    with torch.device("meta"):  # so that no false size takes memory
        expected = Autoencoder(_build(backbone, "backbone"), _build(quantizer, "quantizer")).state_dict()
    # What is no fraction counts steps here, which they do not.
    weights = {name: tensor for name, tensor in expected.items() if tensor.is_floating_point()}
    ours = {name: names.given[name] if name in names.given else names.state.get(names.theirs(name)) for name in weights}
    missing = [names.theirs(name) for name, tensor in ours.items() if tensor is None]
    used = {names.theirs(name) for name in weights if name not in names.given}
    unused = [name for name in names.state if name not in used and name not in names.spare]
    left = [name for name in unused if not name.startswith(tuple(names.known))]
    found = {name: _like(tensor, weights[name]) for name, tensor in ours.items() if tensor is not None}
    other = [
        f"{names.theirs(name)}: {tuple(tensor.shape)} instead of {tuple(weights[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != weights[name].shape or tensor.dtype not in PRECISIONS
    ]
    problems = (("missing", missing), ("left over", left), ("of another shape or type", other))
    said = [
        f"{len(which)} {what} ({', '.join(sorted(which)[:SHOWN])}{', …' if len(which) > SHOWN else ''})"
        for what, which in problems
        if which
    ]
    if said:
        raise CheckpointError(f"The checkpoint's tensors do not fit: {'; '.join(said)}.")
    with memory_to_begin("Choose a machine that has it."):
        network = Tokenizer(_build(backbone, "backbone"), _build(quantizer, "quantizer"), description)
    network.load_state_dict(found, strict=False)
    return network.eval()


def critic_of(state: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], Part]:
    """A patch discriminator in a state dict and its sizes; both empty if there is none, or one of another kind."""
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    convolutions = [value.shape for name, value in found.items() if re.fullmatch(r"main\.\d+\.weight", name)
                    and value.ndim == 4]  # fmt: skip
    if len(convolutions) < 3:
        return {}, {}
    norm = "actnorm" if any(name.endswith(".loc") for name in found) else "batch"
    sizes = {"image_channels": convolutions[0][1], "channels": convolutions[0][0], "layers": len(convolutions) - 2}
    try:
        with torch.device("meta"):
            compare(PatchGAN(**sizes, norm=norm).state_dict(), found)  # type: ignore[arg-type]
    except (ValueError, ConfigError):
        return {}, {}
    return found, {"class": "PatchGAN", **sizes, "norm": norm}


def _build(part: Part, path: str) -> Any:
    values = {key: value for key, value in part.items() if key != "class"}
    kind = classes()[part["class"]]
    check_values(kind, values, path)
    return kind(**values)


def _like(tensor: Tensor, expected: Tensor) -> Tensor:
    """A linear layer of positions is a 1×1 convolution."""
    if tensor.shape == expected.shape[:-2] and expected.shape[-2:] == (1, 1):
        return tensor.reshape(expected.shape)
    return tensor
