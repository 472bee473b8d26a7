"""Which documents a pack has, in which split, and where their tokens will stand: known before any is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from vqgan.data.folder import split_names
from vqgan.errors import ConfigError, check
from vqgan.files.reading import read_whole
from vqgan.packing.layout import Layout
from vqgan.text import counted
from vqgan.tokens.folder import Tokens

LARGEST_LIST = 2**28  # bytes: names of a few million videos
TRAINING, VALIDATION = "train", "val"
LONGEST_DOCUMENT = 2**31 - 1  # tokens: Megatron's index counts in int32


@dataclass(kw_only=True)
class Packing:
    """How tokens are packed: the values of `conf/pack.yaml`.

    Args:
        val_fraction: share of the videos that are for validation, told by their names as in training; in [0, 1).
        lists: splits of one's own instead: for each name a file with the paths of its videos, one a line.
        window: times of codes that a document has at most; longer videos become several. None for whole videos.
        overlap: times that a window has in common with the one before; below `window`.
        begin_of_video: a token before the first code of a video: true, false, or its id.
        end_of_frame: likewise after each time of codes.
        end_of_video: likewise after the last code of a video.
        factors: tokens that a code becomes; see `bases_of`.
        pad_to: the padded vocabulary is a multiple of it.
        side: take the numbers per frame along that the token folder has.
        chunk_megabytes: about so many are written at once: what a kill costs, and what a process holds.
    """

    val_fraction: float
    lists: dict[str, str] | None
    window: int | None
    overlap: int
    begin_of_video: bool | int
    end_of_frame: bool | int
    end_of_video: bool | int
    factors: int
    pad_to: int
    side: bool
    chunk_megabytes: int

    def __post_init__(self) -> None:
        check(0 <= self.val_fraction < 1, "val_fraction", self.val_fraction, "in [0, 1)")
        check(self.window is None or self.window > 0, "window", self.window, "positive")
        check(0 <= self.overlap < (self.window or 1), "overlap", self.overlap, "in [0, window)")
        check(self.factors > 0, "factors", self.factors, "positive")
        check(self.pad_to > 0, "pad_to", self.pad_to, "positive")
        check(self.chunk_megabytes > 0, "chunk_megabytes", self.chunk_megabytes, "positive")
        for name in self.lists or {}:
            fits = name.isidentifier() and len(name) < 100  # it becomes a folder
            check(fits, "lists", name, "names of letters, digits and _")


@dataclass(frozen=True, slots=True)  # there may be millions
class Span:
    """A document: a run of times of one video."""

    video: int  # number in the token folder
    first: int  # time of codes
    times: int
    first_frame: int
    frames: int


@dataclass
class Split:
    """The documents of a split, in the order of their videos' paths.

    Args:
        name: of the split.
        spans: the documents.
        offsets: tokens before each document, and at the end all.
        chunks: the documents of each chunk, as (first, after the last); a video is never in two chunks.
    """

    name: str
    spans: list[Span]
    offsets: Int[np.ndarray, "documents_and_end"]
    chunks: list[tuple[int, int]]

    @property
    def frame_offsets(self) -> Int[np.ndarray, "documents_and_end"]:
        """Frames before each document, and at the end all: rows of side data."""
        return np.cumsum([0, *(span.frames for span in self.spans)])


def frames_of(first: int, times: int, frames: int, folded: int) -> tuple[int, int]:
    """The first frame that a run of times of codes stands for, and how many.

    A video's first frame has codes of its own, and each `folded` that follow have some together; the last ones may be
    fewer.
    """
    begin, end = (0 if time == 0 else 1 + (time - 1) * folded for time in (first, first + times))
    return begin, min(end, frames) - begin


def windows(times: int, window: int | None, overlap: int) -> list[tuple[int, int]]:
    """The runs (first, times) that a video is cut into; the last is shorter where nothing is left for it."""
    if window is None or times <= window:
        return [(0, times)]
    starts = range(0, times - overlap, window - overlap)
    return [(start, min(window, times - start)) for start in starts]


def plan(tokens: Tokens, packing: Packing, layout: Layout) -> list[Split]:
    """All splits.

    Raises:
        ConfigError: a list names what is not there, or twice, or a document is too long.
    """
    return [
        _split(tokens, packing, layout, name, sorted(videos)) for name, videos in _splits(tokens.paths, packing).items()
    ]


def _split(tokens: Tokens, packing: Packing, layout: Layout, name: str, videos: Sequence[int]) -> Split:
    folded = tokens.temporal_downsampling
    spans, lengths, chunks, begun, size = [], [], [], 0, 0
    for video in videos:
        record, _ = tokens.records[video]
        all_times, frames = record.shape[0], record.length
        for first, times in windows(all_times, packing.window, packing.overlap):
            spans.append(Span(video, first, times, *frames_of(first, times, frames, folded)))
            length = layout.length((times, *record.shape[1:]), first == 0, first + times == all_times)
            if length > LONGEST_DOCUMENT:
                raise ConfigError(f"{record.path} has {length:,} tokens, more than a document can have: give a window.")
            lengths.append(length)
            size += length * layout.dtype.itemsize
        if size >= packing.chunk_megabytes * 2**20:
            chunks.append((begun, len(spans)))
            begun, size = len(spans), 0
    if begun < len(spans):
        chunks.append((begun, len(spans)))
    return Split(name, spans, np.cumsum([0, *lengths], dtype=np.int64), chunks)


def fingerprint(tokens: Tokens) -> str:
    """What the codes of a token folder are: a hash of its videos' names, shapes and checksums."""
    digest = hashlib.sha256()
    for record, _ in tokens.records:
        row = [record.path, record.shape, record.crc32]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def settings_of(packing: Packing) -> dict[str, object]:
    """What the bytes of a pack depend on; lists by what they hold, wherever they lie."""
    values = asdict(packing)
    if packing.lists is not None:
        values["lists"] = {
            name: hashlib.sha256(json.dumps(paths).encode()).hexdigest() for name, paths in _read(packing.lists).items()
        }
    return values


def _splits(paths: Sequence[str], packing: Packing) -> Mapping[str, list[int]]:
    number = {path: index for index, path in enumerate(paths)}
    if packing.lists is None:
        names = split_names(paths, packing.val_fraction) if packing.val_fraction else (list(paths), [])
        both = {TRAINING: names[0], VALIDATION: names[1]}
        return {split: [number[path] for path in chosen] for split, chosen in both.items() if chosen}
    found: dict[str, list[int]] = {}
    of: dict[str, str] = {}  # the split of each path
    for split, chosen in _read(packing.lists).items():
        missing = [path for path in chosen if path not in number]
        if missing or not chosen:
            said = f"{counted(len(missing), 'video')} that the tokens lack (the first: {missing[0]})" if missing else ""
            raise ConfigError(f"lists.{split}={packing.lists[split]} names {said or 'no video'}.")
        for path in chosen:
            if path in of:
                raise ConfigError(f"lists.{split}={packing.lists[split]} names {path}, as lists.{of[path]} does.")
            of[path] = split
        found[split] = [number[path] for path in chosen]
    return found


def _read(lists: Mapping[str, str]) -> dict[str, list[str]]:
    return {split: list(_lines(Path(file), split)) for split, file in lists.items()}


def _lines(file: Path, split: str) -> Iterator[str]:
    try:
        yield from filter(None, (line.strip() for line in read_whole(file.expanduser(), LARGEST_LIST).splitlines()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"lists.{split}={file} cannot be read: {error}.") from None
