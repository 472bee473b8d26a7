"""A tokenizer as graphs without Python: what `torch.export` makes of its encoder, decoder and codes.

Of a tokenizer of pictures, (n, rgb, height, width), `encoder` gives indices and `decoder` pictures. One of clips that
remembers is a stream, as it is for us: `encoder_first` takes a video's first frame, `encoder_next` the k·n that follow
in any parts, each with the `state_…` that the graph before gave; so it is for the decoder. `codes` gives the latents
that indices stand for, to whom embeddings are of use.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Memory, Remembers
from vqgan.errors import ConfigError
from vqgan.frames import per_frame

MOST_OFF = 1e-4  # that a picture, in [-1, 1], may differ by from the tokenizer's
MOST_TIES = 1e-3  # share of the codes that may be others: latents as near to one as to the other
LONGEST_REASON = 300  # characters
BATCH, ROWS, COLUMNS, TIMES = (Dim(name, min=1) for name in ("batch", "rows", "columns", "times"))
EXAMPLE = (2, 3, 4, 2)  # batch, rows, columns, times: to trace with
OTHERS = ((1, 5, 2, 3), (3, 2, 7, 2), (4, 6, 5, 4))  # to compare at, one after the other
COMPARED = 300  # positions, at least

Arguments = tuple[Any, ...]
Run = Callable[..., Sequence[Tensor]]


@dataclass
class Graph:
    """One of the graphs of a tokenizer.

    Args:
        name: of its file.
        module: what it does.
        example: arguments of the module; a list for the state of a stream.
        sizes: which sizes of these may change.
        inputs: their names.
        outputs: the names of what it gives.
    """

    name: str
    module: nn.Module
    example: Arguments
    sizes: Arguments
    inputs: list[str]
    outputs: list[str]

    def export(self) -> ExportedProgram:
        """The graph.

        Raises:
            ConfigError: it has none.
        """
        try:
            with torch.no_grad():  # else blocks without gradients are parts of the graph
                program = torch.export.export(self.module, self.example, dynamic_shapes=self.sizes, strict=False)
        except Exception as error:  # what is traced may be anybody's part
            raise no_graph(self.name, error) from None
        # Others than equalities exclude sizes of 1, for memory formats alone; `compare` runs a batch of one.
        program._guards_code = [guard for guard in program._guards_code if " == " in guard]
        return program


def no_graph(name: str, error: Exception) -> ConfigError:
    """The error for a network that cannot be traced, or put into a form."""
    text = " ".join(str(error).split())[:LONGEST_REASON]
    return ConfigError(f"The tokenizer's {name} cannot be exported as a graph: {type(error).__name__}: {text}")


def in_stream(tokenizer: Autoencoder) -> bool:
    """Whether its graphs are those of a stream."""
    return isinstance(tokenizer.encoder, Remembers)


class Encoding(nn.Module):
    """Frames of clips to indices, and the state of the stream after them."""

    def __init__(self, tokenizer: Autoencoder, keys: Sequence[nn.Module] | None) -> None:
        super().__init__()
        self.encoder, self.quant_conv, self.quantizer = tokenizer.encoder, tokenizer.quant_conv, tokenizer.quantizer
        self.keys = keys

    def forward(self, frames: Tensor, state: list[Tensor] | None = None) -> Any:
        """Of pictures indices, of a stream (indices, state)."""
        made, after = _go_on(self.encoder, frames if self.keys else frames[None], self.keys, state)
        indices = self.quantizer(per_frame(self.quant_conv, made).float()).indices
        return (indices, after) if self.keys else indices[0]


class Decoding(nn.Module):
    """Indices back to frames, and the state of the stream after them."""

    def __init__(self, tokenizer: Autoencoder, keys: Sequence[nn.Module] | None) -> None:
        super().__init__()
        self.quantizer, self.post_quant_conv = tokenizer.quantizer, tokenizer.post_quant_conv
        self.decoder, self.keys = tokenizer.decoder, keys

    def forward(self, indices: Tensor, state: list[Tensor] | None = None) -> Any:
        """Of pictures frames, of a stream (frames, state)."""
        latents = self.quantizer.lookup(indices if self.keys else indices[None])
        frames, after = _go_on(self.decoder, per_frame(self.post_quant_conv, latents), self.keys, state)
        return (frames, after) if self.keys else frames[0]


class Codes(nn.Module):
    """Indices to the latents that they stand for."""

    def __init__(self, tokenizer: Autoencoder) -> None:
        super().__init__()
        self.quantizer = tokenizer.quantizer

    def forward(self, indices: Tensor) -> Tensor:
        """(…, rows, columns) to (…, latent, rows, columns)."""
        return self.quantizer.lookup(indices)


def _go_on(
    network: nn.Module, values: Tensor, keys: Sequence[nn.Module] | None, state: list[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """What a network makes of a part of a stream, and the state after it; without keys, of all there is."""
    if keys is None:
        return network(values), []
    memory = Memory()
    memory.last = dict(zip(keys, state or []))
    made = network(values, memory)
    return made, [memory.last[key] for key in keys]


@torch.no_grad()
def graphs_of(tokenizer: Autoencoder) -> Iterator[Graph]:
    """The graphs of a tokenizer on the CPU, in evaluation mode.

    Raises:
        ConfigError: it takes whole clips alone.
    """
    batch, rows, columns, times = EXAMPLE
    time, height, width = tokenizer.downsampling
    remembers = in_stream(tokenizer)
    if time > 1 and not remembers:
        raise ConfigError(
            f"{type(tokenizer.encoder).__name__} takes whole clips alone and cannot go on from a part of a video, so a "
            "graph of it would be of clips of one length. Export it with --format safetensors, for vqgan.load."
        )
    clip = (batch, times) if remembers else (batch,)
    frames = _noise(batch, 1, rows * height, columns * width)
    depth = (tokenizer.quantizer.depth,) if tokenizer.quantizer.depth > 1 else ()
    indices = torch.zeros(*clip, rows, columns, *depth, dtype=torch.int64)
    axes = len(clip)
    of_codes = {0: BATCH, axes: ROWS, axes + 1: COLUMNS} | ({1: TIMES} if remembers else {})
    of_frames = {0: BATCH, axes + 1: height * ROWS, axes + 2: width * COLUMNS}
    yield Graph("codes", Codes(tokenizer), (indices,), (of_codes,), ["indices"], ["latents"])
    if remembers:
        yield from _stream("encoder", Encoding, tokenizer, frames, time, of_frames, ("frames", "indices"))
        yield from _stream("decoder", Decoding, tokenizer, indices[:, :1], 1, of_codes, ("indices", "frames"))
        return
    yield Graph("encoder", Encoding(tokenizer, None), (frames[:, 0],), (of_frames,), ["frames"], ["indices"])
    yield Graph("decoder", Decoding(tokenizer, None), (indices,), (of_codes,), ["indices"], ["frames"])


def _stream(
    name: str, kind: type[Encoding] | type[Decoding], tokenizer: Autoencoder, first: Tensor, step: int,
    may_change: dict[int, Any], names: tuple[str, str],
) -> Iterator[Graph]:  # fmt: skip
    """The graphs of the first part of a stream, which is one frame or time of codes, and of those that follow."""
    memory, (_, rows, columns, times) = Memory(), EXAMPLE
    network = tokenizer.encoder if kind is Encoding else tokenizer.decoder
    network(
        first if kind is Encoding else per_frame(tokenizer.post_quant_conv, tokenizer.quantizer.lookup(first)), memory
    )
    keys, state = [*memory.last], [*memory.last.values()]
    # A state is of a level, whose sides are those of the codes so many times.
    of_state = [{0: BATCH, 3: s.shape[3] // rows * ROWS, 4: s.shape[4] // columns * COLUMNS} for s in state]
    module, (taken, given) = kind(tokenizer, keys), names
    begins = {axis: size for axis, size in may_change.items() if axis != 1}
    inputs, outputs = ([f"{at}state_{number}" for number in range(len(state))] for at in ("", "next_"))
    yield Graph(f"{name}_first", module, (first,), (begins,), [taken], [given, *outputs])
    example, sizes = (first.repeat_interleave(step * times, 1), state), ({**begins, 1: step * TIMES}, of_state)
    yield Graph(f"{name}_next", module, example, sizes, [taken, *inputs], [given, *outputs])


def _noise(batch: int, frames: int, height: int, width: int) -> Tensor:
    return _noise_like(torch.empty(batch, frames, 3, height, width))


def _noise_like(frames: Tensor) -> Tensor:
    return torch.rand(frames.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@torch.no_grad()
def compare(tokenizer: Autoencoder, run: Callable[[str], Run]) -> str:
    """What graphs differ by from the tokenizer that they are of, at sizes that they were not traced with.

    Decoders get codes of the whole codebook, each once before one comes again; encoders get noise, and then what these
    codes stand for, whose own are as manifold.

    Args:
        tokenizer: whose.
        run: gives the function of a graph by its name: all inputs, with the state one after the other, to all outputs.

    Raises:
        ConfigError: it is more than the rounding of another order of summation.
    """
    remembers, quantizer = in_stream(tokenizer), tokenizer.quantizer
    order = torch.randperm(quantizer.codebook_size, generator=torch.Generator().manual_seed(0))
    chosen, positions, others, off = [], 0, 0, 0.0
    sizes = itertools.cycle(OTHERS)
    while positions < COMPARED:
        batch, rows, columns, times = next(sizes)
        shape = (batch, times, rows, columns) if remembers else (batch, rows, columns)
        count = math.prod(shape)
        of_each = torch.arange(positions, positions + count)[:, None] + torch.arange(quantizer.depth)
        codes = order[of_each % len(order)].view(*shape, *([quantizer.depth] if quantizer.depth > 1 else []))
        made = _both("decoder", run, codes, 1) if remembers else run("decoder")(codes)[0]
        expected = tokenizer.decode(codes)
        off = max(off, _apart(made, expected), _apart(run("codes")(codes)[0], quantizer.lookup(codes)))
        frames = expected.clamp(-1, 1) if positions else _noise_like(expected)
        indices = _both("encoder", run, frames, 1) if remembers else run("encoder")(frames)[0]
        right = tokenizer.encode(frames)
        others += int((indices != right).reshape(count, -1).any(1).sum())
        chosen.append(right.flatten())
        positions += count
    given = min(len(order), positions)
    seen, size = len(torch.cat(chosen).unique()), len(order)
    said = (
        f"{others} of {positions} codes differ from the tokenizer's ({seen} of its {size} were met), and frames of "
        f"{given} of its codes by {off:.1g} at most"
    )
    if others > MOST_TIES * positions + 1 or not off <= MOST_OFF:
        raise ConfigError(f"The exported graphs are not the tokenizer: {said}.")
    return f"Compared at sizes that they were not traced with: {said}."


def _apart(made: Tensor, expected: Tensor) -> float:
    """By how much values differ at most; where they are larger than 1, as a share of the largest."""
    return float((made - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def _both(name: str, run: Callable[[str], Run], values: Tensor, first: int) -> Tensor:
    """What the two graphs of a stream give of all of it."""
    begun, *state = run(f"{name}_first")(values[:, :first])
    rest, *_ = run(f"{name}_next")(values[:, first:], *state)
    return torch.cat([begun, rest], 1)
