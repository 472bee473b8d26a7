"""Data sets that do harm to the process that reads them. In a module that is imported quickly: each worker does so."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqgan.data import ClipDataset
from vqgan.data.videos import VideoFolder
from vqgan.video.file import scan_video

CLIPS = 24


def crash() -> None:
    ctypes.string_at(0)  # a segmentation fault, as of a broken decoder


def vanish() -> None:
    os._exit(0)


def hang() -> None:
    while True:
        time.sleep(1)


def hang_in_c() -> None:
    threading.Lock().acquire()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # no signal handler runs in there


def compute_forever() -> None:
    while True:
        sum(range(1000))


def eat_memory() -> None:
    np.ones(2**28)  # 2 GB


class Trapped(ClipDataset):
    """Clips that are their number, some of which do harm when they are read."""

    def __init__(self, traps: dict[int, Callable[[], None]], once: Path | None = None) -> None:
        self.traps, self.once = traps, once

    def __len__(self) -> int:
        return CLIPS

    def path(self, index: int) -> Path:
        return Path(f"clip{index}")

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        if index in self.traps and not (self.once is not None and (self.once / str(index)).exists()):
            if self.once is not None:
                (self.once / str(index)).touch()
            self.traps[index]()
        chance = 0 if rng is None else int(rng.integers(256))
        return torch.tensor([index, chance], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(1, 1, 2, 3)


class Cursed(Trapped):
    """No other process than that which made it gets anywhere."""

    def __init__(self) -> None:
        super().__init__({})
        self.process = os.getpid()

    def path(self, index: int) -> Path:
        if os.getpid() != self.process:
            os._exit(3)
        return super().path(index)


class Stored(Trapped):
    """Clips in a storage that gives nothing while the file OUTAGE is there."""

    def __init__(self) -> None:
        super().__init__({})

    def path(self, index: int) -> Path:
        return Away(f"clip{index}")

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        wait_for_the_storage()
        return super().read(index, rng)


class Away(PosixPath):
    """A file in it."""

    def is_file(self) -> bool:
        wait_for_the_storage()
        return False


def wait_for_the_storage() -> None:
    while Path(os.environ["OUTAGE"]).exists():
        time.sleep(0.02)


class Deadly(VideoFolder):
    """Three times in all, which MARKS counts, a clip ends the process that reads it."""

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        marks = Path(os.environ["MARKS"])
        if rng is not None and len(list(marks.iterdir())) < 3 and index % 5 == 0:
            (marks / str(time.monotonic_ns())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index, rng)


def scan_and_crash(path: Path) -> Any:
    if path.name == "2.mp4":
        crash()
    return scan_video(path)


def scan_and_hang(path: Path) -> Any:
    if path.name == "2.mp4":
        hang_in_c()
    return scan_video(path)


class Large:
    """Results of a megabyte that are no arrays."""

    def __getitem__(self, number: int) -> bytes:
        return bytes([number]) * 2**20


class Batches:
    """Arrays of a megabyte that are their number, and where they come from."""

    def __getitem__(self, number: int) -> dict[str, Any]:
        threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
        return {"pixels": torch.full((2**20,), number, dtype=torch.uint8), "parent": os.getppid(), "threads": threads}


class Complaining:
    """Warns, and fails at the third."""

    def __getitem__(self, number: int) -> int:
        if number == 2:
            raise EOFError("no such thing")  # which is no worker's death
        warnings.warn(f"about {number}", stacklevel=2)
        return number


class Surrounded:
    """Tells where it is."""

    def __getitem__(self, number: int) -> tuple[str | None, str, str]:
        module: Any = importlib.import_module("only_there")
        return os.environ.get("ONLY_NOW"), os.getcwd(), module.NAME  # noqa: PTH109
