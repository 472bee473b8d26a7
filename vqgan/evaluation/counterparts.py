"""`videos:`, reconstructions that somebody already wrote: files that are matched with the originals by their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vqgan.data import BadFiles, ClipDataset, Corpus, Folder
from vqgan.data.images import ImageFolder
from vqgan.data.reading.files import find_files, look_into
from vqgan.data.videos import VideoFolder
from vqgan.errors import ConfigError, DataError
from vqgan.evaluation.reconstructor import Group, Reconstructed, Reconstructor
from vqgan.text import counted
from vqgan.video.file import VideoFile

MOST_NAMED = 10  # files of each kind of fault


class Counterparts(Reconstructor):
    """A folder of reconstructions, each under the path of its original, or under that with another suffix.

    They are scaled and cropped as the originals are, so they may have been written at the originals' size or as the
    squares that are measured. A video needs as many frames as its original: the same ones are taken of both.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).expanduser()
        self.name = f"videos:{self.folder.resolve().name}"
        self.faults: list[str] = []
        self.sizes: set[tuple[int, int]] = set()

    @property
    def remarks(self) -> list[str]:
        """See `Reconstructor`."""
        sizes = ", ".join(f"{width}×{height}" for width, height in sorted(self.sizes)[:MOST_NAMED])
        return [*([f"its files have {sizes} pixels, and are scaled and cropped"] if sizes else []), *self.faults]

    def read_beside(self, dataset: ClipDataset, chosen: Sequence[int], folder: Corpus) -> ClipDataset:
        """The chosen clips that have counterparts, each followed by the same frames of its counterpart.

        Args:
            dataset: that all subjects are measured on.
            chosen: the clips of it that are measured.
            folder: that the data are in.

        Raises:
            ConfigError: the data are no files in a folder.
            DataError: none of them has a counterpart.
        """
        if not isinstance(folder, Folder) or not isinstance(dataset, VideoFolder | ImageFolder):
            raise ConfigError("videos:DIR is measured beside a folder of videos or of pictures, not beside other data.")
        roots = [Path(root).expanduser() for root in (folder.val_root, folder.root) if root is not None]
        files = find_files(self.folder, "videos:DIR", folder.kind.suffixes)
        everything = list(dict.fromkeys(dataset.path(index) for index in range(len(dataset))))
        names = {path: _relative(path, roots) for path in everything}
        matched, left = match(names, files, self.folder)
        measured = dict.fromkeys(dataset.path(index) for index in chosen)
        ledger = BadFiles(self.folder / ".no-ledger", max_fraction=1.0, max_files=0, writes=False)
        wanted = [matched[path] for path in measured if path in matched]
        scanned = look_into(sorted(set(wanted)), folder.kind, folder.workers, folder.limits, None, ledger)
        wrong = {file: ledger.reasons.get(str(file), "unusable") for file in wanted if file not in scanned}
        frames = {video.path: len(video.pts) for video in dataset.videos} if isinstance(dataset, VideoFolder) else {}
        usable: dict[Path, Any] = {}
        for path in measured:
            other = scanned.get(matched[path]) if path in matched else None
            if isinstance(other, VideoFile) and len(other.pts) != frames[path]:
                wrong[matched[path]] = f"{counted(len(other.pts), 'frame')} instead of {frames[path]}"
            elif other is not None:
                usable[path] = other
        self.sizes = {other.displayed_size for other in usable.values() if isinstance(other, VideoFile)}
        self.faults = [
            *_listed("it has no counterpart of", [names[path] for path in measured if path not in matched]),
            *_listed("unusable:", [f"{file.relative_to(self.folder)} ({reason})" for file, reason in wrong.items()]),
            *_listed("no original has", [file.relative_to(self.folder) for file in left]),
        ]
        kept = [index for index in chosen if dataset.path(index) in usable]
        if not kept:
            raise DataError(f"{self.name} has no file that can be matched with an original ({'; '.join(self.faults)}).")
        return _Pairs(dataset, kept, usable)

    def reconstruct(self, groups: Iterable[Group], device: torch.device) -> Iterator[Reconstructed]:
        """See `Reconstructor`; clips come with their counterparts behind them."""
        for paths, clips in groups:
            originals, made = clips.to(device).chunk(2, dim=1)
            yield Reconstructed(paths, originals, made)


class _Pairs(ClipDataset):
    """Some clips of a data set, each followed by the same frames of its counterpart: twice as long."""

    def __init__(self, dataset: VideoFolder | ImageFolder, chosen: Sequence[int], others: Mapping[Path, Any]) -> None:
        self.dataset, self.chosen, self.others = dataset, chosen, others

    def __len__(self) -> int:
        return len(self.chosen)

    def path(self, index: int) -> Path:
        return self.dataset.path(self.chosen[index])

    def read(self, index: int, rng: np.random.Generator | None) -> UInt8[Tensor, "time height width rgb"]:
        number = self.chosen[index]
        other = self.others[self.dataset.path(number)]
        if isinstance(self.dataset, VideoFolder):
            made = self.dataset.read_as(number, other, rng)
        else:
            made = ImageFolder([other], self.dataset.resolution, random_crop=False, flip=False).read(0, rng)
        return torch.cat([self.dataset.read(number, rng), made])


def match(originals: Mapping[Path, Path], files: Sequence[Path], folder: Path) -> tuple[dict[Path, Path], list[Path]]:
    """The counterpart of each original by its relative path, whatever its suffix if no other file is so called.

    Returns:
        Counterparts by original; and the files that belong to none.
    """
    exact = {file.relative_to(folder): file for file in files}
    stems: dict[Path, list[Path]] = {}
    for file in files:
        stems.setdefault(file.relative_to(folder).with_suffix(""), []).append(file)
    found: dict[Path, Path] = {}
    for original, relative in originals.items():
        candidates = [exact[relative]] if relative in exact else stems.get(relative.with_suffix(""), [])
        if len(candidates) == 1:
            found[original] = candidates[0]
    taken = set(found.values())
    return found, [file for file in files if file not in taken]


def _relative(path: Path, roots: Sequence[Path]) -> Path:
    return next((path.relative_to(root) for root in roots if path.is_relative_to(root)), Path(path.name))


def _listed(what: str, names: Sequence[object]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(str(name) for name in names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return [f"{what} {shown}{more}"]
