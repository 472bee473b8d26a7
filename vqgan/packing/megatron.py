"""The index that Megatron-LM reads beside `tokens.bin`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
# Its numbers of types. It has none of uint32; the bytes of tokens below 2^31 are those of int32.
CODES = {"<u2": 8, "<u4": 4}
LARGEST_VOCABULARY = 2**31


def write_index(file: Path, dtype: np.dtype[Any], offsets: Int[np.ndarray, "documents_and_end"]) -> None:
    """Write it: each document is one sequence.

    Little-endian: the magic, version u64, type u8, sequences u64, entries of the last list u64, the length of each
    sequence in tokens (int32), its first byte (int64), and for each document its first sequence (int64), with their
    number at the end.

    Args:
        file: to write.
        dtype: of the tokens.
        offsets: tokens before each document, and at the end all.

    Raises:
        OSError: it cannot be written.
    """
    count = len(offsets) - 1
    with file.open("wb") as index:
        index.write(MAGIC + struct.pack("<QBQQ", VERSION, CODES[dtype.str], count, count + 1))
        index.write(np.diff(offsets).astype("<i4").tobytes())
        index.write((offsets[:-1] * dtype.itemsize).astype("<i8").tobytes())
        index.write(np.arange(count + 1, dtype="<i8").tobytes())
