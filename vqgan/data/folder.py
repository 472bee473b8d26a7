"""Training and validation data; and a folder as such: which files, which split, which could not be used."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic

from vqgan.data.corpus import ClipDataset, Corpus
from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.reading.files import FileKind, Scanned, find_files, look_into
from vqgan.errors import DataError, UnusableError, check


@dataclass(kw_only=True)
class Folder(Corpus, Generic[Scanned]):
    """A folder tree of files, split into training and validation by file; see `Corpus`.

    Links in it are followed, names that start with a dot are not.

    Args:
        index: file in which what was learned of files is kept for later runs; null looks into all of them each time.
        decoded_megabytes: of memory, in which decoded clips are kept for the next epochs if all of them fit; 0: none.
            For data sets that keep them.
    """

    index: str | None = None
    decoded_megabytes: int = 0  # as in what older versions wrote; no pixel depends on it

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.decoded_megabytes >= 0, "decoded_megabytes", self.decoded_megabytes, "at least 0")

    kind: ClassVar[FileKind[Any]]

    @classmethod
    def reads(cls) -> frozenset[str]:
        """See `Corpus.reads`."""
        return cls.kind.suffixes

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
    by_name = {file.relative_to(root).as_posix(): file for file in files}
    training, validation = split_names(list(by_name), fraction)
    return sorted(by_name[name] for name in training), sorted(by_name[name] for name in validation)


def split_names(names: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Names for training and for validation, told by themselves alone; both are the same only if there is just one.

    Args:
        names: paths below a folder.
        fraction: about so many of them are for validation, at least one, and not all.
    """

    def place(name: str) -> float:
        return name_hash(name) / 2**64

    if len(names) == 1:
        return list(names), list(names)
    by_hash = sorted(names, key=place)
    count = min(max(sum(place(name) < fraction for name in names), 1), len(names) - 1)
    return sorted(by_hash[count:]), sorted(by_hash[:count])


def name_hash(name: str) -> int:
    """64 bits by which files are dealt out: the same for a name wherever its folder lies."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
