"""A folder as training and validation data: which files, which split, which could not be used."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vqgan.errors import DataError, check

SCANNERS = 8  # threads that look into files at start-up; demuxing releases the interpreter lock


class UnusableError(Exception):
    """A file or clip that cannot be used; the message is the reason, a few words."""


class BadFiles:
    """The ledger of what could not be used: in `bad_files.jsonl`, once per path and reason, and counted.

    Args:
        file: where the ledger is kept; entries of an earlier part of the run are not repeated.
        max_fraction: of all files; beyond it the run ends.
        max_files: so many bad files never end a run: one text file should not stop a folder of ten videos.
    """

    def __init__(self, file: Path, max_fraction: float, max_files: int) -> None:
        self.file, self.max_fraction, self.max_files = file, max_fraction, max_files
        self.total = 0
        self.reasons: dict[str, str] = {}
        if file.exists():
            known = (json.loads(line) for line in file.read_text().splitlines())
            self.reasons = {entry["path"]: entry["reason"] for entry in known}

    def add(self, path: Path | str, reason: str) -> None:
        """Write one file down, unless it is known already.

        Raises:
            DataError: more files are bad than the budget allows.
        """
        if str(path) in self.reasons:
            return
        self.reasons[str(path)] = reason
        with self.file.open("a") as ledger:
            ledger.write(json.dumps({"path": str(path), "reason": reason}, ensure_ascii=False) + "\n")
        self.check_budget()

    def check_budget(self) -> None:
        """Raise `DataError` if more files are bad than the budget allows; nothing is judged before `total` is known."""
        budget = max(self.max_files, self.max_fraction * self.total)
        if self.total and len(self.reasons) > budget:
            raise DataError(
                f"{len(self.reasons)} of {self.total} files cannot be used ({self.summary()}), more than "
                f"data.max_bad_fraction={self.max_fraction} and data.max_bad_files={self.max_files} allow. "
                f"They are listed in {self.file}. Mend or remove them, or raise data.max_bad_fraction."
            )

    def summary(self) -> str:
        """Counts per reason: `2 no video stream, 1 empty file`."""
        reasons = Counter(reason.partition(":")[0] for reason in self.reasons.values())
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


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

    def __getitem__(self, index: int) -> UInt8[Tensor, "time height width rgb"]:
        """Clip `index` without augmentation."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.read(index, None)


Scanned = TypeVar("Scanned")


@dataclass(kw_only=True)
class Folder(ABC, Generic[Scanned]):
    """A folder tree of files, split into training and validation by file.

    Args:
        root: the folder; links in it are followed, names that start with a dot are not.
        val_root: another folder for validation; null splits `root`.
        val_fraction: share of the files of `root` for validation, in (0, 1). A file's side depends on its path below
            `root` alone, so added files move no other; in small folders the file with the lowest hash validates.
        validation_clips: at most so many clips are validated on, evenly spread over all of them.
        resolution: side of the square frames in pixels.
        crop: training crops, `random` or `center`; validation crops the centre.
        flip: mirror half of the training clips.
        batch_size: clips per micro-batch.
        workers: reading processes; 0 reads in the training process. The batches are the same for any number.
        max_bad_fraction: in [0, 1]; a larger share of unusable files ends the run (exit code 3).
        max_bad_files: at least 0; so few never end it.
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

    suffixes: ClassVar[frozenset[str]]  # in lower case: what counts as a file of this kind

    def __post_init__(self) -> None:
        check(0 < self.val_fraction < 1, "val_fraction", self.val_fraction, "in (0, 1)")
        check(self.validation_clips > 0, "validation_clips", self.validation_clips, "positive")
        check(self.resolution >= 16, "resolution", self.resolution, "at least 16")
        check(self.batch_size > 0, "batch_size", self.batch_size, "positive")
        check(self.workers >= 0, "workers", self.workers, "at least 0")
        check(0 <= self.max_bad_fraction <= 1, "max_bad_fraction", self.max_bad_fraction, "in [0, 1]")
        check(self.max_bad_files >= 0, "max_bad_files", self.max_bad_files, "at least 0")

    @abstractmethod
    def scan(self, path: Path) -> tuple[Scanned, str | None]:
        """Look into one file: what reading it needs, and what is wrong with it although it can be used.

        Raises:
            UnusableError: it cannot be used at all.
        """

    @abstractmethod
    def dataset(self, files: Sequence[Scanned]) -> ClipDataset:
        """The clips of scanned files."""

    def datasets(self, bad_files: BadFiles) -> tuple[ClipDataset, ClipDataset]:
        """Training and validation clips.

        Raises:
            DataError: nothing usable, or more bad files than `bad_files` allows.
        """
        files = self._files(Path(self.root), "data.root")
        if self.val_root is None:
            validation = _validation_files(files, Path(self.root), self.val_fraction)
            training = [file for file in files if file not in validation] or files
        else:
            training, validation = files, set(self._files(Path(self.val_root), "data.val_root"))
        everything = sorted({*training, *validation})
        scanned = dict(zip(everything, self._scan_all(everything, bad_files)))
        usable = [file for file, found in scanned.items() if found is not None]
        if not usable:
            raise DataError(
                f"None of the {len(everything)} files below data.root={self.root} can be used "
                f"({bad_files.summary()}). They are listed in {bad_files.file}."
            )
        bad_files.total = len(everything)
        bad_files.check_budget()
        sides = [
            [found for file in side if (found := scanned[file]) is not None] for side in (training, sorted(validation))
        ]
        # A side may have lost all its files; then both use what there is.
        everything_usable = [found for found in scanned.values() if found is not None]
        train, val = (self.dataset(side or everything_usable) for side in sides)
        return train, val

    def _files(self, root: Path, key: str) -> list[Path]:
        if not root.is_dir():
            raise DataError(f"{key}={root} is not a folder.")
        files = sorted(
            Path(folder) / name
            for folder, subfolders, names in os.walk(root, followlinks=True)
            if _keep_visible(Path(folder), subfolders)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in self.suffixes
        )
        if not files:
            raise DataError(f"{key}={root} holds no file of a known kind ({' '.join(sorted(self.suffixes))}).")
        return files

    def _scan_all(self, files: list[Path], bad_files: BadFiles) -> list[Scanned | None]:
        def scan(file: Path) -> tuple[Scanned | None, str | None]:
            try:
                if not file.exists():
                    raise UnusableError("dangling link")
                if not file.is_file():  # a FIFO would block whoever opens it
                    raise UnusableError("not a regular file")
                if file.stat().st_size == 0:
                    raise UnusableError("empty file")
                return self.scan(file)
            except UnusableError as error:
                return None, str(error)
            except OSError as error:
                return None, f"unreadable: {error.strerror or error}"

        with ThreadPoolExecutor(SCANNERS) as threads:
            progress = tqdm(
                threads.map(scan, files), "scanning", len(files), leave=False, delay=2, disable=None, unit="file"
            )
            results = list(progress)
        for file, (_, reason) in zip(files, results):
            if reason is not None:
                bad_files.add(file, reason)
        return [found for found, _ in results]


def _keep_visible(folder: Path, subfolders: list[str]) -> bool:
    """Tell `os.walk` in place not to enter hidden folders, nor links back to a folder above."""
    above = {p.resolve() for p in (folder, *folder.parents)}
    subfolders[:] = [
        s
        for s in subfolders
        if not s.startswith(".") and not ((folder / s).is_symlink() and (folder / s).resolve() in above)
    ]
    return True


def _validation_files(files: list[Path], root: Path, fraction: float) -> set[Path]:
    def position(file: Path) -> float:
        digest = hashlib.sha256(file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    return {file for file in files if position(file) < fraction} or {min(files, key=position)}
