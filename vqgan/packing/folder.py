"""Reading a pack: `vqgan.packing.open`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt

from vqgan.config.build import check_values
from vqgan.errors import ConfigError, DataError
from vqgan.files.reading import load_json, read_json, read_lines
from vqgan.packing.layout import Layout

LARGEST_META, LONGEST_LINE = 2**30, 2**20  # bytes


@dataclass(frozen=True)
class Document:
    """A document of a pack."""

    path: str  # of its video
    first: int  # time of codes in the video
    tokens: UInt[np.ndarray, "n"] = field(repr=False)  # memory-mapped
    codes: Int[np.ndarray, "times rows columns *depth"] = field(repr=False)  # as the tokenizer gave them
    side: np.ndarray[Any, Any] | None = field(repr=False)  # a row a frame


def open(folder: str | Path) -> Pack:  # `vqgan.packing.open` is what it is called by
    """Open one split of what `vqgan pack` wrote, as `PACK/train`.

    Raises:
        ConfigError: it is no such folder.
        DataError: it is damaged.
    """
    return Pack(Path(folder))


class Pack(Sequence[Document]):
    """The documents of one split, memory-mapped; `meta` is what the pack says of itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.meta = read_json(folder / "meta.json", LARGEST_META)
            values = {**self.meta["layout"], "bases": tuple(self.meta["layout"]["bases"])}
            check_values(Layout, values, "layout")
            self.layout = Layout(**values)
            self.lines = [load_json(line) for line in read_lines(folder / "documents.jsonl", LONGEST_LINE)]
            self.tokens = np.memmap(folder / "tokens.bin", self.layout.dtype, "r")
            self.offsets = np.load(folder / "offsets.npy", allow_pickle=False)
            self.side = self.side_offsets = None
            if self.meta["side"] is not None:
                self.side = np.load(folder / "side.npy", mmap_mode="r", allow_pickle=False)
                self.side_offsets = np.load(folder / "side_offsets.npy", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{folder} is no split of tokens packed by vqgan pack ({error}).") from None
        if len(self.offsets) != len(self.lines) + 1 or self.offsets[-1] != len(self.tokens):
            raise DataError(f"{folder} is damaged: its files are not of the same documents. Check its SHA256SUMS.")

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: Any) -> Any:
        """Document `index`; of a slice a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        line = self.lines[index]
        tokens = self.tokens[self.offsets[index] : self.offsets[index + 1]]
        side = None
        if self.side is not None and self.side_offsets is not None:
            side = self.side[self.side_offsets[index] : self.side_offsets[index + 1]]
        try:
            codes = self.layout.read(tokens, line["shape"][1], line["shape"][2])
        except (ValueError, TypeError, LookupError) as error:
            raise DataError(f"Document {index} of {self.folder} is damaged ({error}). Check its SHA256SUMS.") from None
        return Document(line["path"], line["first"], tokens, codes, side)
