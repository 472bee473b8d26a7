"""A folder as training and validation data: which files, which split, which could not be used."""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vqgan.data.bad_files import BadFiles, UnusableError
from vqgan.data.index import Index
from vqgan.data.workers import Limits, Watch, supervised
from vqgan.errors import DataError, check

MOST_SCANNERS = 16  # processes that look into files at start-up, unless more read them in training


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
        limits: what reading one file may cost.
        index: file in which what was learned of files is kept for later runs; null looks into all of them each time.
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
    index: str | None = None

    fingerprint: str = field(init=False, default="")  # of the usable files: their paths below the root, and sizes

    suffixes: ClassVar[frozenset[str]]  # in lower case: what counts as a file of this kind
    kind: ClassVar[str]  # of what `scan` finds, with everything that changes it: what the index calls it

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

    def accept(self, scanned: Scanned) -> None:  # nothing to ask for unless there is something
        """Raise `UnusableError` if a file, which can be used, does not give what this configuration asks for."""

    @abstractmethod
    def pack(self, scanned: Scanned) -> bytes:
        """What `scan` found, for the index."""

    @abstractmethod
    def unpack(self, path: Path, content: bytes) -> Scanned:
        """Take it back; raises `ValueError` if it is damaged."""

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
        val_root = root if self.val_root is None else Path(self.val_root).expanduser()
        others = [] if self.val_root is None else self._files(val_root, "data.val_root")
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
        self.fingerprint = _fingerprint([(root, training), (val_root, validation)])
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
        found: dict[Path, Scanned | None] = {}
        with Index(self.index, self.kind) as index:
            for file, (complaint, content) in index.look_up(files).items():
                with contextlib.suppress(ValueError):
                    found[file] = self.unpack(file, content)
                    self._note(file, complaint, bad_files)
            unknown = [file for file in files if file not in found]
            with closing(self._scan(unknown)) as results:
                for file, (scanned, complaint) in zip(unknown, results):
                    found[file] = scanned
                    self._note(file, complaint, bad_files)
                    if scanned is not None:
                        index.add(file, complaint, self.pack(scanned))
        return [self._accepted(file, found[file], bad_files) for file in files]

    def _scan(self, files: list[Path]) -> Generator[tuple[Scanned | None, str | None], None, None]:
        workers = max(self.workers, min(MOST_SCANNERS, os.cpu_count() or 1)) if self.workers else 0
        watch = Watch(min(workers, len(files)), self.limits)
        scanner = _Scanner(self.scan, files, watch)
        scan: Generator[tuple[Scanned | None, str | None], None, None] = supervised(
            scanner, lambda position: range(position, len(files)), watch, scanner.lose
        )
        with closing(scan):
            yield from tqdm(scan, "scanning", len(files), leave=False, delay=2, disable=None, unit="file")

    def _accepted(self, file: Path, scanned: Scanned | None, bad_files: BadFiles) -> Scanned | None:
        if scanned is not None:
            try:
                self.accept(scanned)
            except UnusableError as error:
                self._note(file, str(error), bad_files)
                return None
        return scanned

    @staticmethod
    def _note(file: Path, complaint: str | None, bad_files: BadFiles) -> None:
        if complaint is not None:
            bad_files.add(file, complaint)


class _Scanner(Dataset[Any]):
    """What `scan` finds in each file; None and the reason for one that cannot be used."""

    def __init__(self, scan: Callable[[Path], tuple[Any, str | None]], files: Sequence[Path], watch: Watch) -> None:
        self.scan, self.files, self.watch = scan, files, watch
        self.lost: dict[int, str] = {}

    def lose(self, number: int, _: int, reason: str) -> str:
        self.lost[number] = reason
        return str(self.files[number])

    def __getitem__(self, number: int) -> tuple[Any | None, str | None]:
        file = self.files[number]
        try:
            if number in self.lost:
                raise UnusableError(self.lost[number])
            if not file.exists():
                raise UnusableError("dangling link")
            if not file.is_file():  # a FIFO would block whoever opens it
                raise UnusableError("not a regular file")
            if file.stat().st_size == 0:
                raise UnusableError("empty file")
            with self.watch.reading(number):
                return self.scan(file)
        except UnusableError as error:
            return None, str(error)
        except OSError as error:
            return None, f"unreadable: {error.strerror or error}"


def _fingerprint(sides: Sequence[tuple[Path, list[Path]]]) -> str:
    """What the files of training and validation are, wherever their folders lie."""
    digest = hashlib.sha256()
    for root, files in sides:
        for file in files:
            name = file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
            digest.update(b"%b\0%d\0" % (name, file.stat().st_size))
        digest.update(b"\0")
    return f"{sum(len(files) for _, files in sides)} files, {digest.hexdigest()[:32]}"


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
