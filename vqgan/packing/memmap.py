"""A pack that NumPy maps and Megatron-LM has an index of: processes fill one file together."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np

from vqgan.errors import DataError
from vqgan.files.writing import whole, write_all
from vqgan.packing.megatron import write_index
from vqgan.packing.plan import Split
from vqgan.packing.writer import UNFINISHED, Packer, save
from vqgan.tokens.folder import Tokens


class MemmapPacker(Packer):
    """Writes `tokens.bin`, which NumPy maps, with the index of Megatron-LM beside it."""

    kind = "memmap"

    def write_chunk(self, tokens: Tokens, split: Split, chunk: int) -> str:
        """See `Packer.write_chunk`."""
        first, _ = split.chunks[chunk]
        for name, size in self._sizes(split).items():
            with self._part(split, name).open("ab") as begun:
                begun.truncate(size)  # as long as it will be, with whatever others have written
        with self._part(split, "tokens.bin").open("rb+", buffering=0) as file:
            file.seek(int(split.offsets[first]) * self.layout.dtype.itemsize)
            for _, span in self.checked_spans(tokens, split, chunk):
                for line in self.lines(tokens, span):
                    write_all(file, line.tobytes())
            os.fsync(file.fileno())
        if self.side is not None:
            head, row = self._side_head(split)
            with self._part(split, "side.npy").open("rb+", buffering=0) as file:
                write_all(file, head)
                file.seek(len(head) + row * int(split.frame_offsets[first]))
                for number in range(*split.chunks[chunk]):
                    rows = self.rows(tokens, split.spans[number])
                    write_all(file, np.ascontiguousarray(rows, rows.dtype.newbyteorder("<")).tobytes())
                os.fsync(file.fileno())
        return ""

    def is_there(self, split: Split, *_: object) -> bool:
        """See `Packer.is_there`."""
        for name, size in self._sizes(split).items():
            places = self._part(split, name), self._file(split, name)
            if not any(file.exists() and file.stat().st_size == size for file in places):
                return False
        return True

    def finish_split(self, split: Split) -> None:
        """See `Packer.finish_split`."""
        folder = self.out / split.name
        for name, size in self._sizes(split).items():
            part, file = self._part(split, name), self._file(split, name)
            if part.exists():
                part.replace(file)
            if not file.exists() or file.stat().st_size != size:
                raise DataError(f"{file} was changed while it was packed. Type the same command again.")
        if self.side is not None:
            save(folder / "side_offsets.npy", split.frame_offsets)
        save(folder / "offsets.npy", split.offsets)
        with whole(folder / "tokens.idx") as aside:
            write_index(aside, self.layout.dtype, split.offsets)

    def _part(self, split: Split, name: str) -> Path:
        """The file that processes fill together, which becomes `_file`."""
        return self.out / UNFINISHED / f"{split.name}.{name}"

    def _file(self, split: Split, name: str) -> Path:
        return self.out / split.name / name

    def _sizes(self, split: Split) -> dict[str, int]:
        """The bytes of each of those files when it is whole."""
        sizes = {"tokens.bin": int(split.offsets[-1]) * self.layout.dtype.itemsize}
        if self.side is not None:
            head, row = self._side_head(split)
            sizes["side.npy"] = len(head) + row * int(split.frame_offsets[-1])
        return sizes

    def _side_head(self, split: Split) -> tuple[bytes, int]:
        """What a file of NumPy's begins with, and the bytes of a row."""
        assert self.side is not None
        dtype, row = self.side
        head = io.BytesIO()
        shape = (int(split.frame_offsets[-1]), *row)
        np.lib.format.write_array_header_1_0(head, {"descr": dtype.str, "fortran_order": False, "shape": shape})
        return head.getvalue(), math.prod(row) * dtype.itemsize
