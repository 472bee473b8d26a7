"""Which files there are below a folder, and what is learned of them by looking into each once."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from tqdm import tqdm

from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.reading.index import Index
from vqgan.data.reading.limits import Limits
from vqgan.data.reading.own_folders import is_own, refuse_run_folder
from vqgan.data.reading.workers import read_jobs
from vqgan.errors import DataError, UnusableError
from vqgan.runtime.process import this_process
from vqgan.text import counted

MOST_SCANNERS = 16  # processes that look into files at start-up, unless more read them in training
Scanned = TypeVar("Scanned")


@dataclass(frozen=True)
class FileKind(Generic[Scanned]):
    """A kind of file, and how one is looked into.

    `scan` finds what reading the file needs, and what is wrong with it although it can be used; it raises
    `UnusableError` if it cannot be used at all. `pack` and `unpack` are the way into the index and back; `unpack`
    raises `ValueError` if that is damaged.
    """

    name: str  # with everything that changes what `scan` finds: what the index calls it
    suffixes: frozenset[str]  # in lower case
    scan: Callable[[Path], tuple[Scanned, str | None]]
    pack: Callable[[Scanned], bytes]
    unpack: Callable[[Path, bytes], Scanned]


def find_files(root: Path, key: str, suffixes: frozenset[str], without: Path | None = None) -> list[Path]:
    """All files below a folder that have one of the suffixes; links are followed, hidden names are not.

    Folders below it that vqgan itself wrote are left out, with one warning.

    Args:
        root: the folder.
        key: what the user called it.
        suffixes: in lower case.
        without: a folder whose files are left out too.

    Raises:
        ConfigError: it is the folder of a run, or lies in one.
        DataError: there are none.
    """

    def is_of_this_kind(name: str) -> bool:
        return not name.startswith(".") and Path(name).suffix.lower() in suffixes

    if not root.is_dir():
        seen_from = "" if root.is_absolute() else f" It was looked for from {Path.cwd()}."
        raise DataError(f"{key}={root} is not a folder.{seen_from} Name one that exists.")
    refuse_run_folder(root, key)
    left_out = None if without is None else without.resolve()
    files: list[Path] = []
    folders: list[Path] = []
    own: list[Path] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        is_below = Path(folder) != root
        if is_below and is_own(set(names)):
            own.append(Path(folder))
            subfolders.clear()
            continue
        if left_out is not None and Path(folder).resolve().is_relative_to(left_out):
            subfolders.clear()
            continue
        _keep_visible(Path(folder), subfolders)
        files += [Path(folder) / name for name in names if is_of_this_kind(name)]
        folders += [Path(folder) / name for name in subfolders if is_of_this_kind(name)]
    # A folder with the name of a file is a folder, unless it holds nothing of use.
    holding = {folder for file in files for folder in file.parents} if folders else set()
    files += [folder for folder in folders if folder not in holding]
    if not files:
        hint = "Its tar files are for data=shards." if any(root.glob("*.tar")) else "Name another folder."
        beside = f" outside of {without}" if without is not None else ""
        beside += f" but what vqgan wrote in {own[0]}" if own else ""
        raise DataError(f"{key}={root} holds no file of a known kind ({' '.join(sorted(suffixes))}){beside}. {hint}")
    if own and this_process().is_first:
        which = f"{min(own)}{', …' if len(own) > 1 else ''}"
        warnings.warn(
            f"Left out of {root}, since vqgan wrote it: {counted(len(own), 'folder')}, {which}.", stacklevel=1
        )
    return sorted(files)


def look_into(
    files: list[Path],
    kind: FileKind[Scanned],
    workers: int,
    limits: Limits,
    index_file: str | None,
    bad_files: BadFiles,
) -> dict[Path, Scanned]:
    """What is known of each file that can be used, in the order of `files`; what is wrong is written down.

    Args:
        files: of this kind.
        kind: how they are looked into.
        workers: at least so many processes, more if there are cores for them; 0 looks in this one.
        limits: of each look.
        index_file: where what was learned is kept; None looks into all of them.
        bad_files: the ledger.
    """
    known: dict[Path, Scanned] = {}
    with Index(index_file, kind.name) as index:
        for file, (complaint, content) in index.look_up(files).items():
            with contextlib.suppress(ValueError):
                known[file] = kind.unpack(file, content)
                if complaint is not None:
                    bad_files.add(file, complaint)
        unknown = [file for file in files if file not in known]
        results = _scan(unknown, kind, workers, limits)
        with closing(results):
            for file, result in zip(unknown, results):
                scanned, complaint = (None, result) if isinstance(result, str) else result
                if complaint is not None:
                    bad_files.add(file, complaint)
                if scanned is not None:
                    known[file] = scanned
                    index.add(file, complaint, kind.pack(scanned))
    return {file: known[file] for file in files if file in known}


def _scan(
    files: list[Path], kind: FileKind[Scanned], workers: int, limits: Limits
) -> Generator[tuple[Scanned, str | None] | str, None, None]:
    workers = max(workers, min(MOST_SCANNERS, os.cpu_count() or 1)) if workers else 0
    scan = read_jobs(
        partial(_look, kind.scan, files),
        ((number,) for number in range(len(files))),
        min(workers, len(files)),
        limits,
        files.__getitem__,
    )
    with closing(scan):
        yield from tqdm(scan, "scanning", len(files), leave=False, delay=2, disable=None, unit="file")


def _look(
    scan: Callable[[Path], tuple[Scanned, str | None]], files: list[Path], number: int
) -> tuple[Scanned, str | None]:
    file = files[number]
    try:
        if not file.exists():
            raise UnusableError("dangling link")
        if not file.is_file():  # a FIFO would block whoever opens it
            raise UnusableError("not a regular file")
        if file.stat().st_size == 0:
            raise UnusableError("empty file")
        return scan(file)
    except OSError as error:
        raise UnusableError(f"unreadable: {error.strerror or error}") from None


def _keep_visible(folder: Path, subfolders: list[str]) -> None:
    """Tell `os.walk` in place not to enter hidden folders, nor links back to a folder above."""
    above = {p.resolve() for p in (folder, *folder.parents)}
    subfolders[:] = [
        s
        for s in subfolders
        if not s.startswith(".") and not ((folder / s).is_symlink() and (folder / s).resolve() in above)
    ]
