"""What becomes of memory that a process does not need any more."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 2**17, 2**16


def keep_freed_memory(wanted: bool) -> None:
    """Whether memory that is freed stays with the process, where that can be chosen (glibc).

    Else each large tensor is mapped anew and filled with zeros by the system, a tenth of a step in float32.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0 if wanted else DEFAULT_MMAP_MAX)
        mallopt(M_TRIM_THRESHOLD, -1 if wanted else DEFAULT_TRIM_THRESHOLD)
