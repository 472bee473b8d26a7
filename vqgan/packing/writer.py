"""Writing a pack by chunks: a kill costs one of them, and any number of processes writes the same bytes."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Float
from tqdm import tqdm

from vqgan.errors import ConfigError, DataError
from vqgan.files.continued import go_on_with
from vqgan.files.lock import hold
from vqgan.files.reading import read_whole
from vqgan.files.writing import replace_text, storing, whole
from vqgan.packing.layout import Layout, bases_of
from vqgan.packing.megatron import LARGEST_VOCABULARY
from vqgan.packing.meta import MADE_OF, common, document_lines, of_split
from vqgan.packing.plan import Packing, Span, Split, plan
from vqgan.runtime.process import Process, this_process
from vqgan.text import counted
from vqgan.tokens.folder import Tokens
from vqgan.tokens.side import read_side

META, SUMS, UNFINISHED, LOCK = "meta.json", "SHA256SUMS", ".unfinished", ".lock"
LARGEST_SUMS = 2**28  # bytes
CODES_AT_ONCE = 2**20  # that are turned into tokens together


@dataclass
class Packer(ABC):
    """Packs a token folder, or the part of it that is this process's.

    Where each document's tokens will stand is known before any is written: processes write chunks of documents, each
    of them every `count`-th, and leave a mark for each chunk that is on the disk. The one that finds all marks writes
    what belongs beside. Nothing depends on who wrote what, so neither do the bytes.

    Args:
        tokens: the folder.
        packing: how.
        out: the folder to write, or to go on with.
        codebook: the table of codes, to lie beside; None where there is none.
    """

    tokens: Tokens
    packing: Packing
    out: Path
    codebook: Float[np.ndarray, "codes latent"] | None = None
    process: Process = field(default_factory=this_process)

    kind = ""

    def __post_init__(self) -> None:
        size = self.tokens.codebook_size
        quantizer = dict(self.tokens.manifest.get("description") or {}).get("quantizer") or {}
        bases = bases_of(quantizer, size, self.packing.factors)
        asked = self.packing
        self.layout = Layout(
            size, self.tokens.depth, bases, asked.begin_of_video, asked.end_of_frame, asked.end_of_video
        )
        if self.layout.vocabulary >= LARGEST_VOCABULARY:
            raise ConfigError(f"{size:,} codes are more than other engines have numbers for: give factors=2, or more.")
        if not len(self.tokens):
            raise DataError(f"{self.tokens.folder} holds no tokens yet.")
        self.splits = plan(self.tokens, self.packing, self.layout)
        self.side = self._side() if self.packing.side else None
        self.meta = common(self.tokens, asked, self.layout, self.kind, self._side_meta(), self.codebook is not None)

    def run(self) -> str:
        """Write what is not there yet; returns what was done, in a sentence.

        Raises:
            ConfigError: the folder holds a pack of something else.
            DataError: the tokens are damaged.
            RunFolderInUseError: another process writes there.
            StorageError: it cannot be written to.
        """
        with hold(self.out, self.process.rank):
            go_on_with(self.out / META, self.meta, MADE_OF, "pack")
            if self._begin():
                return f"0 chunks packed, all {counted(len(list(self._jobs())), 'chunk')} already there"
            mine = list(self._jobs())[self.process.rank :: self.process.count]
            left = [job for job in mine if not self._mark(*job).exists()]
            for split, chunk in tqdm(left, unit="chunk", disable=None if self.process.is_first else True):
                with storing(self.out / split.name):
                    # A copy maps the shards anew, so that what was read of them for the last chunk is given back.
                    replace_text(self._mark(split, chunk), self.write_chunk(copy.copy(self.tokens), split, chunk))
            done = self._finish()
        already = f", {len(mine) - len(left)} already there" if len(left) < len(mine) else ""
        return f"{counted(len(left), 'chunk')} packed{already}{'' if done else '; other processes have not ended'}"

    @abstractmethod
    def write_chunk(self, tokens: Tokens, split: Split, chunk: int) -> str:
        """Write the documents of one chunk, so that they are on the disk; returns what its mark is to say."""

    @abstractmethod
    def is_there(self, split: Split, chunk: int, mark: str) -> bool:
        """Whether files have the size that they had when this mark was left."""

    @abstractmethod
    def finish_split(self, split: Split) -> None:
        """Write what belongs beside the chunks, all of which are there; it may have been done before, in part."""

    def checked_spans(self, tokens: Tokens, split: Split, chunk: int) -> Iterator[tuple[int, Span]]:
        """The documents of a chunk with their numbers, each video's after its bytes were compared with their checksum.

        Raises:
            DataError: they differ.
        """
        first, after = split.chunks[chunk]
        for number in range(first, after):
            span = split.spans[number]
            if number == first or span.video != split.spans[number - 1].video:
                record, shard = tokens.records[span.video]
                crc32 = 0
                for block in self._blocks(tokens, Span(span.video, 0, record.shape[0], 0, record.length)):
                    crc32 = zlib.crc32(block.tobytes(), crc32)
                if crc32 != record.crc32:
                    raise DataError(f"{shard} is damaged: the codes of {record.path} are not those that were written.")
            yield number, span

    def lines(self, tokens: Tokens, span: Span) -> Iterator[np.ndarray]:
        """The tokens of a document, in pieces.

        Raises:
            DataError: a code is none.
        """
        record, _ = tokens.records[span.video]
        time = span.first
        try:
            for block in self._blocks(tokens, span):
                after = time + len(block)
                yield self.layout.write(block, time == 0, after == record.shape[0])
                time = after
        except ValueError as error:
            raise DataError(f"{self.tokens.folder} is damaged: {record.path} has {error}.") from None

    def rows(self, tokens: Tokens, span: Span) -> np.ndarray:
        """The side data of a document's frames."""
        record, _ = tokens.records[span.video]
        side = read_side(tokens.folder, record.path, record.length)
        assert side is not None
        return np.asarray(side[span.first_frame : span.first_frame + span.frames])

    def _blocks(self, tokens: Tokens, span: Span) -> Iterator[np.ndarray]:
        codes = tokens.codes(span.video)[span.first : span.first + span.times]
        count = max(1, CODES_AT_ONCE // max(1, codes[0].size))
        for first in range(0, len(codes), count):
            yield codes[first : first + count]

    def _jobs(self) -> Iterator[tuple[Split, int]]:
        return ((split, chunk) for split in self.splits for chunk in range(len(split.chunks)))

    def _mark(self, split: Split, chunk: int) -> Path:
        return self.out / UNFINISHED / f"{split.name}-{chunk:06}"

    def _begin(self) -> bool:
        """Make folders, and forget marks of what is no longer there; returns whether the pack is whole."""
        with storing(self.out), FileLock(self.out / LOCK):
            if (self.out / SUMS).exists():
                if (damaged := next(damaged_files(self.out), None)) is None:
                    return True
                warnings.warn(f"{damaged} is not what was packed: all is packed anew.", stacklevel=3)
                (self.out / SUMS).unlink()
            (self.out / UNFINISHED).mkdir(exist_ok=True)
            for split in self.splits:
                (self.out / split.name).mkdir(exist_ok=True)
            for job in self._jobs():  # before any process makes a file that was cut off as long as it has to be
                mark = self._mark(*job)
                if mark.exists() and not self.is_there(*job, mark.read_text(encoding="utf-8")):
                    mark.unlink()
        return False

    def _finish(self) -> bool:
        """Write what belongs beside the chunks, if this process is the last; returns whether the pack is whole."""
        with storing(self.out), FileLock(self.out / LOCK):
            if (self.out / SUMS).exists():
                return True
            if not all(self._mark(*job).exists() for job in self._jobs()):
                return False
            for split in self.splits:
                folder = self.out / split.name
                with whole(folder / "documents.jsonl") as aside, aside.open("x", encoding="utf-8") as listed:
                    listed.writelines(json.dumps(line) + "\n" for line in document_lines(self.tokens, split))
                self.finish_split(split)
                told = {**self.meta, **of_split(self.tokens, split)}
                replace_text(folder / META, json.dumps(told) + "\n")
            if self.codebook is not None:
                save(self.out / "codebook.npy", self.codebook.astype("<f4"))
            replace_text(self.out / SUMS, "".join(self._sums()))
            shutil.rmtree(self.out / UNFINISHED)
        return True

    def _sums(self) -> Iterator[str]:
        files = [self.out / META, *self.out.glob("*.npy"), *self.out.glob("dataset_dict.json")]
        files += [file for split in self.splits for file in (self.out / split.name).iterdir()]
        for file in sorted(files):
            if not file.name.startswith("."):
                yield f"{_sha256(file)}  {file.relative_to(self.out).as_posix()}\n"

    def _side(self) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
        """The type of side data and the shape of a row, which all videos have in common; None where none has any."""
        found: dict[str, tuple[np.dtype[Any], tuple[int, ...]] | None] = {}  # by video
        for video in sorted({span.video for split in self.splits for span in split.spans}):
            record, _ = self.tokens.records[video]
            rows = read_side(self.tokens.folder, record.path, record.length)
            found[record.path] = None if rows is None else (rows.dtype.newbyteorder("<"), rows.shape[1:])
        first = next((path for path, kind in found.items() if kind is not None), None)
        if first is None:
            return None
        for path, kind in found.items():
            if kind != found[first]:
                raise DataError(
                    f"Side data of {path}: {_in_words(kind)}; of {first}: {_in_words(found[first])}. Make them alike "
                    "and encode again, or give side=false."
                )
        return found[first]

    def _side_meta(self) -> dict[str, Any] | None:
        return None if self.side is None else {"dtype": self.side[0].name, "shape": list(self.side[1])}


def _in_words(kind: tuple[np.dtype[Any], tuple[int, ...]] | None) -> str:
    return "none" if kind is None else f"{kind[0].name} numbers of shape {kind[1]} a frame"


def damaged_files(out: Path) -> Iterator[Path]:
    """The files of a pack that are not what its SHA256SUMS says.

    Raises:
        OSError: one cannot be read.
        ValueError: there is no such list.
    """
    for line in read_whole(out / SUMS, LARGEST_SUMS).splitlines():
        digest, name = line.split("  ", 1)
        if not (out / name).is_file() or _sha256(out / name) != digest:
            yield out / name


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def save(file: Path, array: np.ndarray) -> None:
    """Write an array as NumPy's file, whole."""
    with whole(file) as aside, aside.open("xb") as new:
        np.save(new, array, allow_pickle=False)


def warn_if_shared(splits: list[Split]) -> None:
    """Say so where one video is in training and in validation."""
    if len(splits) == 2 and splits[0].spans[0].video == splits[1].spans[0].video:
        warnings.warn("There is one video: it is in both splits, as in training.", stacklevel=2)
