"""Codes as a line of tokens for a language model, and back."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from vqgan.errors import check

ORDER = ("t", "y", "x")  # and depth, and digit, where there are several
LARGEST_OF_16_BITS = 2**16
LARGEST_ID = 2**31 - 2  # Megatron's index has int32 alone
SPECIAL = ("begin_of_video", "end_of_frame", "end_of_video")


@dataclass(frozen=True)
class Layout:
    """Where each code of a video stands among its tokens.

    The order is time, row, column, code of a position (depth), digit of a code; the last changes fastest. A code that
    becomes several tokens is written in the mixed radix of `bases`, the least significant digit first::

        code = Σ_i token_i · Π_{j<i} bases_j

    Special tokens have the ids that are asked for, or, where they are True, the first ones after all digits that are
    not asked for, in the order of their names here; those that are False are not there.

    Args:
        codebook_size: codes that an index can name.
        depth: codes a position.
        bases: of the digits of a code, each at least 2 where there are several; their product holds the codebook.
        begin_of_video: whether a token says so, or its id.
        end_of_frame: after each time of codes, which stands for several frames where the tokenizer folds time.
        end_of_video: whether a token says so, or its id.

    Raises:
        InvalidValueError: an id is that of a code, or of two tokens.
    """

    codebook_size: int
    depth: int
    bases: tuple[int, ...]
    begin_of_video: bool | int
    end_of_frame: bool | int
    end_of_video: bool | int

    def __post_init__(self) -> None:
        fits = min(self.bases) >= min(2, self.codebook_size) and math.prod(self.bases) >= self.codebook_size
        check(fits, "factors", self.bases, "digits that hold the codebook")
        for name, chosen in self._chosen.items():
            fits = self.digits <= chosen <= LARGEST_ID
            check(fits, name, chosen, f"true, false, or an id in [{self.digits}, {LARGEST_ID}], which no code has")
            other = next(key for key, value in self._chosen.items() if value == chosen)
            check(other == name, name, chosen, f"another id than that of {other}")

    @property
    def _chosen(self) -> dict[str, int]:
        """The ids that are asked for."""
        asked = {name: getattr(self, name) for name in SPECIAL}
        return {name: value for name, value in asked.items() if not isinstance(value, bool)}

    @property
    def digits(self) -> int:
        """The number of different tokens that stand for codes, [0, digits)."""
        return max(self.bases)

    @property
    def special(self) -> dict[str, int | None]:
        """The id of each special token, or None."""
        chosen = self._chosen
        left = (number for number in itertools.count(self.digits) if number not in chosen.values())
        others = {name: next(left) if getattr(self, name) else None for name in SPECIAL if name not in chosen}
        return {name: chosen[name] if name in chosen else others[name] for name in SPECIAL}

    @property
    def vocabulary(self) -> int:
        """The largest id and one: the number of different tokens, unless ids were chosen that leave some out."""
        return max([self.digits, *(1 + number for number in self.special.values() if number is not None)])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of tokens on the disk: uint16 where it holds them, else uint32; little-endian."""
        return np.dtype("<u2" if self.vocabulary <= LARGEST_OF_16_BITS else "<u4")

    @property
    def order(self) -> list[str]:
        """The names of the axes, from the slowest to the fastest."""
        return [*ORDER, *(["depth"] if self.depth > 1 else []), *(["digit"] if len(self.bases) > 1 else [])]

    def of_time(self, shape: Sequence[int]) -> int:
        """Tokens of one time of codes of this shape (times, rows, columns[, depth])."""
        return math.prod(shape[1:]) * len(self.bases) + self._has("end_of_frame")

    def length(self, shape: Sequence[int], begins: bool, ends: bool) -> int:
        """Tokens of a document with codes of this shape, which may begin or end its video."""
        there = [begins and self._has("begin_of_video"), ends and self._has("end_of_video")]
        return shape[0] * self.of_time(shape) + sum(there)

    def write(self, codes: UInt[np.ndarray, "times rows columns *depth"], begins: bool, ends: bool) -> np.ndarray:
        """Tokens of whole times of codes, of `dtype`, as one line.

        Args:
            codes: in [0, codebook_size).
            begins: whether these are the first of their video.
            ends: whether these are the last.

        Raises:
            ValueError: a code is no code.
        """
        if codes.size and int(codes.max()) >= self.codebook_size:
            raise ValueError(f"a code of {int(codes.max())} in a codebook of {self.codebook_size}")
        tokens = codes.reshape(len(codes), -1).astype(self.dtype)
        if len(self.bases) > 1:
            rest, digits = codes.astype(np.int64), []
            for base in self.bases:
                rest, digit = np.divmod(rest, base)
                digits.append(digit.astype(self.dtype))
            tokens = np.stack(digits, -1).reshape(len(codes), -1)
        if self._has("end_of_frame"):
            tokens = np.concatenate([tokens, self._token("end_of_frame").repeat(len(tokens))[:, None]], 1)
        parts = [tokens.reshape(-1)]
        if begins and self._has("begin_of_video"):
            parts.insert(0, self._token("begin_of_video"))
        if ends and self._has("end_of_video"):
            parts.append(self._token("end_of_video"))
        return np.concatenate(parts)

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not False

    def _token(self, name: str) -> np.ndarray:
        return np.array([self.special[name]], self.dtype)

    def read(self, tokens: Int[np.ndarray, "n"] | UInt[np.ndarray, "n"], rows: int, columns: int) -> np.ndarray:
        """The codes of a line of tokens, a model's own too: int64 (times, rows, columns[, depth]).

        Special tokens are left out, wherever they stand, and so is a last time that is not whole.

        Raises:
            ValueError: a token is none of this layout, or digits name no code.
        """
        line = np.asarray(tokens).astype(np.int64)
        if line.size and not 0 <= line.min() <= line.max() < self.vocabulary:
            raise ValueError(f"a token of {line.max()} in a vocabulary of {self.vocabulary}")
        others = line[line >= self.digits]
        unknown = others[~np.isin(others, [number for number in self.special.values() if number is not None])]
        if unknown.size:
            raise ValueError(f"a token of {unknown[0]}, which stands for nothing")
        line = line[line < self.digits]
        of_time = rows * columns * self.depth * len(self.bases)
        shape = (-1, rows, columns, self.depth, len(self.bases))
        digits = line[: len(line) // of_time * of_time].reshape(shape)
        codes = (digits * np.cumprod([1, *self.bases[:-1]])).sum(-1)
        if (codes.size and codes.max() >= self.codebook_size) or (digits >= self.bases).any():
            raise ValueError(f"digits that name none of {self.codebook_size} codes")
        return codes if self.depth > 1 else codes[..., 0]


def bases_of(quantizer: Mapping[str, Any], codebook_size: int, count: int) -> tuple[int, ...]:
    """The bases by which a code becomes `count` digits.

    They are groups of the numbers of a latent where codes are made of these: of FSQ's levels, of the bits of a codebook
    of a power of 2 (LFQ and BSQ, bit i of which is the sign of number i). Other codes have digits to one base.

    Args:
        quantizer: the description of it that the manifest of the tokens has.
        codebook_size: codes that an index can name.
        count: of digits.

    Raises:
        InvalidValueError: a code has not so many.
    """
    if count == 1:
        return (codebook_size,)
    levels = _levels(quantizer, codebook_size)
    if levels is None and codebook_size & (codebook_size - 1) == 0:
        levels = [2] * (codebook_size.bit_length() - 1)
    most = codebook_size.bit_length() if levels is None else len(levels)
    check(1 <= count <= most, "factors", count, f"in [1, {most}] for this quantizer")
    if levels is None:
        base = max(2, math.ceil(codebook_size ** (1 / count)))
        while base > 2 and (base - 1) ** count >= codebook_size:  # roots are rounded
            base -= 1
        return (base + (base**count < codebook_size),) * count
    return _most_even(tuple(levels), count)


@functools.cache
def _most_even(levels: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The products of a list's `count` runs, divided so that the largest product is as small as can be."""
    if count == 1:
        return (math.prod(levels),)
    ways = (
        (math.prod(levels[:end]), *_most_even(levels[end:], count - 1)) for end in range(1, len(levels) - count + 2)
    )
    return min(ways, key=lambda bases: (max(bases), -min(bases)))


def _levels(part: Mapping[str, Any], codebook_size: int) -> list[int] | None:
    """FSQ's levels, wherever in the description of a quantizer they stand."""
    for value in part.values():
        if isinstance(value, Mapping) and (found := _levels(value, codebook_size)) is not None:
            return found
    levels = part.get("levels")
    if not isinstance(levels, list) or not all(isinstance(n, int) and n > 1 for n in levels):
        return None
    return levels if math.prod(levels) == codebook_size else None
