from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqgan.data import ClipDataset
from vqgan.data.folder import Folder
from vqgan.data.reading.files import FileKind
from vqgan.errors import UnusableError


def scan(path: Path) -> tuple[Path, None]:
    """What is learned of a file before it is used, and a complaint if a part of it is missing."""
    if np.load(path, mmap_mode="r").ndim != 4:
        raise UnusableError("not (time, height, width, rgb)")
    return path, None


@dataclass(kw_only=True)
class Arrays(Folder[Path]):
    """Clips as NumPy arrays, uint8 (time, height, width, rgb), all of one size."""

    kind = FileKind(
        name="arrays", suffixes=frozenset({".npy"}), scan=scan, pack=lambda _: b"", unpack=lambda path, _: path
    )

    def dataset(self, files: Sequence[Path]) -> ClipDataset:
        return ArrayClips(files)


class ArrayClips(ClipDataset):
    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        return torch.from_numpy(np.load(self.files[index]))

    def path(self, index: int) -> Path:
        return self.files[index]
