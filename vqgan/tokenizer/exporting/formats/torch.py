"""Graphs for PyTorch alone, by torch.export: encoder, decoder and codes as .pt2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import _pytree

from vqgan.tokenizer.exporting.graphs import Run, compare, graphs_of, in_stream
from vqgan.tokenizer.exporting.made import Made
from vqgan.tokenizer.tokenizer import Tokenizer

PICTURES = """\
import torch
encoder, decoder = (torch.export.load(f"{name}/{part}.pt2").module() for part in ("encoder", "decoder"))
indices = encoder(frames)      # (n, rgb, h, w) in [-1, 1] -> integer codes
frames = decoder(indices)
"""
STREAM = """\
import torch
first, following = (torch.export.load(f"{name}/encoder_{part}.pt2").module() for part in ("first", "next"))
indices, state = first(frames[:, :1])      # (batch, time, rgb, h, w) in [-1, 1] -> integer codes
indices, state = following(frames[:, 1:], state)      # and so on; decoder_first and decoder_next go back
"""


def make(tokenizer: Tokenizer, discriminator: Mapping[str, Tensor] | None) -> Made:  # noqa: ARG001
    """Every tokenizer that can be traced.

    Raises:
        ConfigError: it cannot.
    """
    programs = {graph.name: graph.export() for graph in graphs_of(tokenizer)}

    def run(name: str) -> Run:
        module = programs[name].module()

        def call(values: Tensor, *state: Tensor) -> list[Tensor]:
            return _pytree.tree_leaves(module(values, list(state)) if state else module(values))

        return call

    said = compare(tokenizer, run)

    def write(folder: Path) -> None:
        for name, program in programs.items():
            torch.export.save(program, folder / f"{name}.pt2")

    return Made(write, STREAM if in_stream(tokenizer) else PICTURES, "pytorch", said, ("*.pt2",))
