"""A folder as training and validation data: which files, which split, which could not be used."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
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

MIN_SIDE, MAX_ASPECT = 16, 16  # pixels of the shorter side, longer over shorter side
SCANNERS = 8  # threads that look into files at start-up; demuxing releases the interpreter lock


class UnusableError(Exception):
    """A file or clip that cannot be used; the message is the reason, a few words."""


def check_size(width: float, height: float) -> None:
    """Raise `UnusableError` if a picture, as displayed, is too small or too long to be cropped from."""
    if min(width, height) < MIN_SIDE:
        raise UnusableError(f"too small: {width:.0f}×{height:.0f}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableError(f"too long a side: {width:.0f}×{height:.0f}")


class BadFiles:
    """The ledger of what could not be used: in `bad_files.jsonl`, once per path and reason, and counted.

    Args:
        file: where the ledger is kept. What an earlier part of the run wrote is not repeated, nor is it counted: the
            files may have been mended since.
        max_fraction: of all files; beyond it the run ends.
        max_files: so many bad files never end a run: one text file should not stop a folder of ten videos.
    """

    def __init__(self, file: Path, max_fraction: float, max_files: int) -> None:
        self.file, self.max_fraction, self.max_files = file, max_fraction, max_files
        self.total = 0
        self.reasons: dict[str, str] = {}
        content = file.read_text(encoding="utf-8") if file.exists() else ""
        self.written = set(_entries(content))
        if content and not content.endswith("\n"):  # the last line of a run that was killed
            file.write_text(content + "\n", encoding="utf-8")

    def add(self, path: Path | str, reason: str) -> None:
        """Write one file down, unless it is known already.

        Raises:
            DataError: more files are bad than the budget allows.
        """
        if str(path) in self.reasons:
            return
        self.reasons[str(path)] = reason
        if (str(path), reason) not in self.written:
            # A name that is not UTF-8 is written as JSON's own escapes.
            with self.file.open("a", encoding="utf-8", errors="backslashreplace") as ledger:
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


def _entries(content: str) -> Iterator[tuple[str, str]]:
    for line in content.split("\n"):  # names may hold what `splitlines` takes for an end of line
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        yield entry["path"], entry["reason"]


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
            `root` alone, so added files move no other; in small folders, where a side would be empty, it gets the file
            with the lowest (validation) or highest hash (training).
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
        check(self.root != "", "root", self.root, "a folder")  # else it would be the current one
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
        root = Path(self.root).expanduser()
        files = self._files(root, "data.root")
        others = [] if self.val_root is None else self._files(Path(self.val_root).expanduser(), "data.val_root")
        everything = sorted({*files, *others})
        found = dict(zip(everything, self._scan_all(everything, bad_files)))
        usable = {file: scanned for file, scanned in found.items() if scanned is not None}
        for side, key, folder in (files, "data.root", self.root), (others, "data.val_root", self.val_root):
            if side and not any(file in usable for file in side):
                raise DataError(
                    f"None of the {len(side)} files below {key}={folder} can be used ({bad_files.summary()}). "
                    f"They are listed in {bad_files.file}."
                )
        bad_files.total = len(everything)
        bad_files.check_budget()
        training = [file for file in files if file in usable]
        validation = [file for file in others if file in usable]
        if self.val_root is None:
            training, validation = _split(training, root, self.val_fraction)
        return self.dataset([usable[file] for file in training]), self.dataset([usable[file] for file in validation])

    def _files(self, root: Path, key: str) -> list[Path]:
        if not root.is_dir():
            raise DataError(f"{key}={root} is not a folder. Name one that exists.")
        files: list[Path] = []
        folders: list[Path] = []
        for folder, subfolders, names in os.walk(root, followlinks=True):
            _keep_visible(Path(folder), subfolders)
            files += [Path(folder) / name for name in names if self._is_of_this_kind(name)]
            folders += [Path(folder) / name for name in subfolders if self._is_of_this_kind(name)]
        # A folder with the name of a file is a folder, unless it holds nothing of use.
        holding = {folder for file in files for folder in file.parents} if folders else set()
        files += [folder for folder in folders if folder not in holding]
        if not files:
            raise DataError(
                f"{key}={root} holds no file of a known kind ({' '.join(sorted(self.suffixes))}). Name another folder."
            )
        return sorted(files)

    def _is_of_this_kind(self, name: str) -> bool:
        return not name.startswith(".") and Path(name).suffix.lower() in self.suffixes

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


def _keep_visible(folder: Path, subfolders: list[str]) -> None:
    """Tell `os.walk` in place not to enter hidden folders, nor links back to a folder above."""
    above = {p.resolve() for p in (folder, *folder.parents)}
    subfolders[:] = [
        s
        for s in subfolders
        if not s.startswith(".") and not ((folder / s).is_symlink() and (folder / s).resolve() in above)
    ]


def _split(files: list[Path], root: Path, fraction: float) -> tuple[list[Path], list[Path]]:
    """Training and validation files; both are the same only if there is just one."""

    def position(file: Path) -> float:
        digest = hashlib.sha256(file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    if len(files) == 1:
        return files, files
    by_hash = sorted(files, key=position)
    count = min(max(sum(position(file) < fraction for file in files), 1), len(files) - 1)
    return sorted(by_hash[count:]), sorted(by_hash[:count])
