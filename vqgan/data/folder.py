"""Training and validation data; and a folder as such: which files, which split, which could not be used."""

from __future__ import annotations

import functools
import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vqgan.data.bad_files import BadFiles, UnusableError
from vqgan.data.search import FileKind, Scanned, find_files, look_into
from vqgan.data.workers import Limits
from vqgan.errors import ConfigError, DataError, check


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

    def order(self, seed: int, epoch: int) -> Order:
        """The order in which an epoch passes over all clips, each once: a function of the arguments alone."""
        return _permutation(len(self), seed, epoch)

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

    def refuse_same(self) -> ConfigError:
        """The error for a folder that is to be both trained on and validated on."""
        return ConfigError(
            f"data.root={self.root} and data.val_root={self.val_root} hold the same, so what is validated on would be "
            "trained on. Name another data.val_root, or none: then data.val_fraction of data.root is held out."
        )


@dataclass(kw_only=True)
class Folder(Corpus, Generic[Scanned]):
    """A folder tree of files, split into training and validation by file; see `Corpus`.

    Links in it are followed, names that start with a dot are not.

    Args:
        index: file in which what was learned of files is kept for later runs; null looks into all of them each time.
    """

    index: str | None = None

    kind: ClassVar[FileKind[Any]]

    def accept(self, scanned: Scanned) -> None:  # nothing to ask for unless there is something
        """Raise `UnusableError` if a file, which can be used, does not give what this configuration asks for."""

    @abstractmethod
    def dataset(self, files: Sequence[Scanned]) -> ClipDataset:
        """The clips of scanned files."""

    def datasets(self, bad_files: BadFiles) -> tuple[ClipDataset, ClipDataset]:
        """See `Corpus.datasets`."""
        root = Path(self.root).expanduser()
        val_root = root if self.val_root is None else Path(self.val_root).expanduser()
        files, others = self._find(root, val_root) if self.val_root is not None else (self._find_all(root), [])
        usable = self._look_into({"data.root": files, "data.val_root": others}, bad_files)
        training = [file for file in files if file in usable]
        validation = [file for file in others if file in usable]
        if self.val_root is None:
            training, validation = _split(training, root, self.val_fraction)
        self.fingerprint = _fingerprint([(root, training), (val_root, validation)])
        return self.dataset([usable[file] for file in training]), self.dataset([usable[file] for file in validation])

    def whole(self, bad_files: BadFiles) -> ClipDataset:
        """See `Corpus.whole`."""
        root = Path(self.root).expanduser()
        usable = self._look_into({"data.root": self._find_all(root)}, bad_files)
        self.fingerprint = _fingerprint([(root, list(usable))])
        return self.dataset(list(usable.values()))

    def _find_all(self, root: Path) -> list[Path]:
        return find_files(root, "data.root", self.kind.suffixes)

    def _find(self, root: Path, val_root: Path) -> tuple[list[Path], list[Path]]:
        """The files of both folders; where one lies in the other, its files are its own."""
        training, validation = root.resolve(), val_root.resolve()
        inner, outer = validation.is_relative_to(training), training.is_relative_to(validation)
        if inner and outer:
            raise self.refuse_same()
        files = find_files(root, "data.root", self.kind.suffixes, without=None if outer else val_root)
        others = find_files(val_root, "data.val_root", self.kind.suffixes, without=None if inner else root)
        if inner or outer:
            first, second = ("val_root", "root") if inner else ("root", "val_root")
            warnings.warn(
                f"data.{first}={getattr(self, first)} lies in data.{second}={getattr(self, second)}: its files are for "
                f"{'validation' if inner else 'training'} alone. Version 0.1 took them for both: its runs go on with "
                "allow_other_data=true only.",
                stacklevel=3,
            )
        return files, others

    def _look_into(self, sides: dict[str, list[Path]], bad_files: BadFiles) -> dict[Path, Scanned]:
        """The usable files of the folders that keys name, in order."""
        everything = sorted({file for files in sides.values() for file in files})
        found = look_into(everything, self.kind, self.workers, self.limits, self.index, bad_files)
        usable: dict[Path, Scanned] = dict(self._accepted(found, bad_files))
        for key, files in sides.items():
            if files and not any(file in usable for file in files):
                folder = getattr(self, key.removeprefix("data."))
                raise DataError(
                    f"None of the {len(files)} files below {key}={folder} can be used ({bad_files.summary()}). "
                    f"They are listed in {bad_files.file}."
                )
        bad_files.total = len(everything)
        bad_files.check_budget()
        return usable

    def _accepted(self, found: dict[Path, Scanned], bad_files: BadFiles) -> Iterator[tuple[Path, Scanned]]:
        for file, scanned in found.items():
            try:
                self.accept(scanned)
            except UnusableError as error:
                bad_files.add(file, str(error))
            else:
                yield file, scanned


def _fingerprint(sides: Sequence[tuple[Path, list[Path]]]) -> str:
    """What the files of training and validation are, wherever their folders lie."""
    digest = hashlib.sha256()
    for root, files in sides:
        for file in files:
            name = file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
            digest.update(b"%b\0%d\0" % (name, file.stat().st_size))
        digest.update(b"\0")
    return f"{sum(len(files) for _, files in sides)} files, {digest.hexdigest()[:32]}"


def _split(files: list[Path], root: Path, fraction: float) -> tuple[list[Path], list[Path]]:
    """Training and validation files; both are the same only if there is just one."""

    def place(file: Path) -> float:
        return name_hash(file.relative_to(root).as_posix()) / 2**64

    if len(files) == 1:
        return files, files
    by_hash = sorted(files, key=place)
    count = min(max(sum(place(file) < fraction for file in files), 1), len(files) - 1)
    return sorted(by_hash[count:]), sorted(by_hash[:count])


def name_hash(name: str) -> int:
    """64 bits by which files are dealt out: the same for a name wherever its folder lies."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")


@functools.lru_cache(maxsize=4)
def _permutation(clips: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng([seed, epoch, clips]).permutation(clips)
