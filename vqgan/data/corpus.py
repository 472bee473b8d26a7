"""What every data set is: clips to train on and clips to validate on."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.reading.limits import Limits
from vqgan.errors import ConfigError, check


@runtime_checkable
class Order(Protocol):
    """A permutation of clips, by position."""

    def __getitem__(self, position: int, /) -> Any: ...


class ClipDataset(Dataset[Tensor], ABC):
    """Clips of a set of files, each uint8 (time, height, width, rgb) of one size."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, rng: np.random.Generator | None) -> UInt8[Tensor, "time height width rgb"]:
        """Clip `index`, with its random choices drawn from `rng`; None takes the middle of every choice.

        Raises:
            UnusableError: it cannot be read.
        """

    @abstractmethod
    def path(self, index: int) -> Path:
        """The file that clip `index` is from."""

    def video(self, index: int) -> Path:
        """What clip `index` shares with those that are not independent of it: its file, where that is a whole video."""
        return self.path(index)

    def seconds(self, index: int) -> list[float] | None:  # noqa: ARG002
        """When in its file each frame of clip `index`, without augmentation, is shown; None where there is no time."""
        return None

    def lasts(self, index: int) -> float | None:  # noqa: ARG002
        """Seconds of video that clip `index` stands for; None where there is no time."""
        return None

    def order(self, seed: int, epoch: int) -> Order:
        """The order in which an epoch passes over all clips, each once: a function of the arguments alone."""
        return _permutation(len(self), seed, epoch)

    @property
    def decoded_bytes(self) -> int:
        """Of memory in which all training clips are kept once they have been decoded; 0: they are decoded each time."""
        return 0

    def prefetch(self, indices: Sequence[int]) -> None:
        """Told that these clips are read next; what comes from afar can be asked for all at once."""

    def __getitem__(self, index: int) -> UInt8[Tensor, "time height width rgb"]:
        """Clip `index` without augmentation."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.read(index, None)


@dataclass(kw_only=True)
class Corpus(ABC):
    """Training and validation clips, and how they are drawn: what all choices of `conf/data` have in common.

    Args:
        root: where the clips are.
        val_root: where those for validation are; null splits `root`. Of two folders one in the other, the inner one's
            files are its own.
        val_fraction: share of the files of `root` for validation, in (0, 1). A file's side depends on its path below
            `root` alone, so added files move no other; in small sets, where a side would be empty, it gets the file
            with the lowest (validation) or highest hash (training).
        validation_clips: at most so many clips are validated on, evenly spread over all of them.
        resolution: side of the square frames in pixels.
        crop: training crops, `random` or `center`; validation crops the centre.
        flip: mirror half of the training clips.
        batch_size: clips per micro-batch, of all processes together.
        workers: reading processes; 0 reads in the training process. The batches are the same for any number.
        max_bad_fraction: in [0, 1]; a larger share of unusable files ends the run (exit code 3).
        max_bad_files: at least 0; so few never end it.
        limits: what reading one file may cost.
    """

    root: str
    val_root: str | None
    val_fraction: float
    validation_clips: int
    resolution: int
    crop: Literal["random", "center"]
    flip: bool
    batch_size: int
    workers: int
    max_bad_fraction: float
    max_bad_files: int
    limits: Limits

    fingerprint: str = field(init=False, default="")  # of what is used, wherever it lies; known with the clips

    def __post_init__(self) -> None:
        check(self.root != "", "root", self.root, "a folder")  # else it would be the current one
        check(0 < self.val_fraction < 1, "val_fraction", self.val_fraction, "in (0, 1)")
        check(self.validation_clips > 0, "validation_clips", self.validation_clips, "positive")
        check(self.resolution >= 16, "resolution", self.resolution, "at least 16")
        check(self.batch_size > 0, "batch_size", self.batch_size, "positive")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
        check(0 <= self.max_bad_fraction <= 1, "max_bad_fraction", self.max_bad_fraction, "in [0, 1]")
        check(self.max_bad_files >= 0, "max_bad_files", self.max_bad_files, "at least 0")

    @abstractmethod
    def datasets(self, bad_files: BadFiles) -> tuple[ClipDataset, ClipDataset]:
        """Training and validation clips.

        Raises:
            ConfigError: `root` and `val_root` are the same, or one is no place for data.
            DataError: nothing usable, or more bad files than `bad_files` allows.
        """

    @abstractmethod
    def whole(self, bad_files: BadFiles) -> ClipDataset:
        """The clips of all usable files of `root`, which is not split.

        Raises:
            DataError: see `datasets`.
        """

    @classmethod
    def reads(cls) -> frozenset[str]:
        """The suffixes of the files that it reads, in lower case; none for a data set that makes its own."""
        return frozenset()

    def times(self) -> tuple[int | None, float | None]:
        """Which frames of a video make a clip: the stride, and frames a second; None where it is not asked for.

        What a figure depends on, and is written down with it.
        """
        return None, None

    def refuse_same(self) -> ConfigError:
        """The error for a folder that is to be both trained on and validated on."""
        return ConfigError(
            f"data.root={self.root} and data.val_root={self.val_root} hold the same, so what is validated on would be "
            "trained on. Name another data.val_root, or none: then data.val_fraction of data.root is held out."
        )


@functools.lru_cache(maxsize=4)
def _permutation(clips: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng([seed, epoch, clips]).permutation(clips)
