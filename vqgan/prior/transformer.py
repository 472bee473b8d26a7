"""A decoder-only transformer over the codes of clips, frame by frame, row by row, depth within a position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.prior.rotary import Rotation

MOST_CODES = 2**18  # of a position: their logits are computed at once
Codes = Int[Tensor, "batch times rows columns depth"]
Side = Float[Tensor, "batch times numbers"]


@dataclass(frozen=True)
class Alphabet:
    """What codes there are, and in which grids they lie.

    Args:
        codebook_size: codes that an index can name.
        depth: codes of a position.
        rows: of the largest grid.
        columns: likewise.
        numbers: of the side data of a time; 0 for none.
    """

    codebook_size: int
    depth: int
    rows: int
    columns: int
    numbers: int


class Cache:
    """Keys and values of the slots so far in each layer, so that each slot is computed once.

    Args:
        layers: of the network.
        slots: that there is room for.
    """

    def __init__(self, layers: int, slots: int) -> None:
        self.slots, self.length = slots, 0
        self.told: Tensor | None = None
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def tell(self, before: Int[Tensor, "batch new"]) -> Int[Tensor, "batch slots"]:
        """Take what new slots are told; returns what all so far are."""
        self.told = before if self.told is None else torch.cat([self.told, before], 1)
        return self.told

    def add(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take those of new slots; returns those of all so far."""
        room = self.layers[layer]
        if room is None:
            shape = (*keys.shape[:2], self.slots, keys.shape[3])
            room = keys.new_empty(shape), values.new_empty(shape)
            self.layers[layer] = room
        end = self.length + keys.shape[2]
        for held, new in zip(room, (keys, values)):
            held[:, :, self.length : end] = new
        return room[0][:, :, :end], room[1][:, :, :end]


class Transformer(nn.Module):
    """Predicts each code from those before it.

    Slot i asks for code i, and is told code i - 1. Its query stands at the place of the code that it asks for, its key
    at the place of the one that it was told: how far apart both are, in time, rows and columns, is then the same for
    every neighbour, also across the ends of rows. Row, column and depth of what is asked for are told as well, and
    whether the first slot is a video's first. Side data of a time is told to all slots of that time.

    With `last_time` a slot is told the code at its own place a time before as well, which attention would have to learn
    to look up: in most videos most of a picture is that of the one before.

    The output shares its table with the input (Press and Wolf 2017, arXiv:1608.05859); layers are normed before, and
    queries and keys too, which keeps attention from saturating (Henry et al. 2020, arXiv:2010.04245).

    Args:
        dim: numbers of a slot; a multiple of `heads`.
        layers: how many.
        heads: of attention, each of an even number of at least 6 numbers.
        hidden: numbers within a layer's perceptron.
        dropout: share of what each layer adds that is left out in training, in [0, 1).
        rotary_base: of the rotary positions; see `Rotation`.
        alphabet: of the codes.
        last_time: whether slots are told the code at their place a time before.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        hidden: int,
        dropout: float,
        rotary_base: float,
        alphabet: Alphabet,
        last_time: bool,
    ) -> None:
        super().__init__()
        for key, value in (("dim", dim), ("layers", layers), ("heads", heads), ("hidden", hidden)):
            check(value > 0, key, value, "positive")
        fits = dim % heads == 0 and dim // heads >= 6 and dim // heads % 2 == 0
        check(fits, "heads", heads, f"such that each has an even number, at least 6, of the dim={dim} numbers")
        check(0 <= dropout < 1, "dropout", dropout, "in [0, 1)")
        check(rotary_base > 1, "rotary_base", rotary_base, "above 1")
        self.alphabet, self.dropout, self.rotary_base, self.head = alphabet, dropout, rotary_base, dim // heads
        self.codes = nn.Embedding(alphabet.depth * alphabet.codebook_size, dim)
        self.starts = nn.Embedding(2, dim)  # told to the first slot, which no code is before
        self.rows, self.columns = nn.Embedding(alphabet.rows, dim), nn.Embedding(alphabet.columns, dim)
        self.depths = nn.Embedding(alphabet.depth, dim)
        self.last_time = nn.Linear(dim, dim, bias=False) if last_time else None
        self.side = nn.Linear(alphabet.numbers, dim) if alphabet.numbers else None
        self.side_mean, self.side_scale = (nn.Buffer(torch.full((alphabet.numbers,), v)) for v in (0.0, 1.0))
        self.layers = nn.ModuleList([Layer(dim, heads, hidden, dropout) for _ in range(layers)])
        self.norm, self.last = nn.LayerNorm(dim, bias=False), nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.last.weight)  # all codes are alike at first: a shared table would bet on the code before
        self.bias = nn.Parameter(torch.zeros(alphabet.depth, alphabet.codebook_size))
        for table in (self.codes, self.starts, self.rows, self.columns, self.depths):
            nn.init.normal_(table.weight, std=dim**-0.5)

    def forward(
        self, codes: Codes, begins: Bool[Tensor, "batch"], side: Side | None
    ) -> Float[Tensor, "batch times rows columns depth"]:
        """The nats of each code under the network: -log p(code | those before it, side data).

        Args:
            codes: of clips.
            begins: whether a clip is the beginning of its video.
            side: of each time; None where there is none.
        """
        flat = codes.flatten(1)
        logits = self.logits(F.pad(flat[:, :-1], (1, 0)), codes.shape[2], codes.shape[3], begins, side, 0, None)
        return F.cross_entropy(logits.flatten(0, 1).float(), flat.flatten(), reduction="none").view_as(codes)

    def logits(
        self,
        before: Int[Tensor, "batch slots"],
        rows: int,
        columns: int,
        begins: Bool[Tensor, "batch"],
        side: Side | None,
        first: int,
        cache: Cache | None,
    ) -> Float[Tensor, "batch slots codes"]:
        """The logits of the codes of a run of slots.

        Args:
            before: the code before that of each slot; of slot 0 whatever, since there is none.
            rows: of the grid.
            columns: likewise.
            begins: whether a clip is the beginning of its video.
            side: of all times so far.
            first: the number of the first slot; those before it are in the cache.
            cache: of the slots so far; the new ones are added. None where the run is all there is.
        """
        slots = torch.arange(first, first + before.shape[1], device=before.device)
        depth, size = self.alphabet.depth, self.alphabet.codebook_size
        asked, told = (self._places(slots - shift, rows, columns) for shift in (0, 1))
        x = self.codes(before + (slots - 1) % depth * size)
        if first == 0:
            x = torch.cat([self.starts(begins.long())[:, None], x[:, 1:]], 1)
        x = x + self.rows(asked[:, 1]) + self.columns(asked[:, 2]) + self.depths(slots % depth)
        if self.last_time is not None:
            a_time = rows * columns * depth
            so_far = before if cache is None else cache.tell(before)
            there = F.pad(so_far, (a_time - 1, 0))[:, slots]  # slot i is told code i - 1: this is code i - a_time
            x = x + self.last_time(self.codes(there + slots % depth * size)) * (slots >= a_time)[:, None]
        if self.side is not None:
            assert side is not None
            x = x + self.side((side - self.side_mean) / self.side_scale)[:, asked[:, 0]]
        turns = [Rotation(places, self.head, self.rotary_base) for places in (asked, told)]
        x = F.dropout(x, self.dropout, self.training)
        for number, layer in enumerate(self.layers):
            x = layer(x, *turns, number, cache)
        if cache is not None:
            cache.length += before.shape[1]
        return self._logits(self.last(self.norm(x)), first)

    def _places(self, slots: Int[Tensor, "slots"], rows: int, columns: int) -> Int[Tensor, "slots 3"]:
        """Time, row and column; of the one before slot 0 those of the last of a time before."""
        position = slots // self.alphabet.depth
        return torch.stack([position // (rows * columns), position // columns % rows, position % columns], 1)

    def _logits(self, x: Float[Tensor, "batch slots dim"], first: int) -> Float[Tensor, "batch slots codes"]:
        depth = self.alphabet.depth
        table = self.codes.weight.view(depth, -1, x.shape[2])
        if depth == 1:
            return F.linear(x, table[0], self.bias[0])
        made = x.new_empty(*x.shape[:2], table.shape[1])
        for d in range(depth):
            of = (first + d) % depth
            made[:, d::depth] = F.linear(x[:, d::depth], table[of], self.bias[of])
        return made


class Layer(nn.Module):
    """Attention to all slots before and the own one, then a perceptron; each adds to what is there.

    Args:
        dim: numbers of a slot.
        heads: of attention.
        hidden: numbers within the perceptron.
        dropout: share of what is added that is left out in training.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(dim, bias=False), nn.LayerNorm(dim, bias=False)
        self.all, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
        for last in (self.out, self.down):  # a layer begins as nothing
            nn.init.zeros_(last.weight)

    def forward(
        self, x: Float[Tensor, "batch slots dim"], asked: Rotation, told: Rotation, number: int, cache: Cache | None
    ) -> Float[Tensor, "batch slots dim"]:
        """Slots with what the layer adds; `number` is the layer's in the cache."""
        q, k, v = self.all(self.norm_attention(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = asked(F.layer_norm(q, q.shape[-1:])).to(v.dtype), told(F.layer_norm(k, k.shape[-1:])).to(v.dtype)
        begins = cache is None or cache.length == 0
        if cache is not None:
            k, v = cache.add(number, k, v)
        # With a cache that holds something a run is one slot, which sees all.
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=begins)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)
        added = self.down(F.gelu(self.up(self.norm_perceptron(x)), approximate="tanh"))
        return x + F.dropout(added, self.dropout, self.training)
