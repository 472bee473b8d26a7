"""Encoding a folder of videos: what is left to do, read by several processes, written so that a kill costs little."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vqgan.data import BadFiles
from vqgan.data.bad_files import UnusableError
from vqgan.data.search import find_files, look_into
from vqgan.data.video_file import CUT_OFF, VideoFile
from vqgan.data.video_reader import FrameStream
from vqgan.data.videos import VIDEO_FILES
from vqgan.data.workers import Watch, supervised
from vqgan.distributed import Process, this_process
from vqgan.encoding import Encoding, Reading, reading_for
from vqgan.errors import ConfigError, DataError, RunFolderInUseError, counted, storing
from vqgan.inference import codes_of, placed
from vqgan.pretrained import Tokenizer
from vqgan.provenance import environment
from vqgan.run_folder import replace_text
from vqgan.shards import ShardWriter
from vqgan.token_records import COMMON, FORMAT, MANIFEST, read_manifest, smallest_type
from vqgan.tokens import Tokens


@dataclass
class FolderEncoder:
    """Encodes a folder of videos, or the part of it that is this process's.

    Args:
        tokenizer: in evaluation mode.
        encoding: how.
        root: the folder, or one video.
        out: the token folder; what it holds already is not done again.
    """

    tokenizer: Tokenizer
    encoding: Encoding
    root: Path
    out: Path

    def __post_init__(self) -> None:
        self.process: Process = this_process()
        self.reading = reading_for(self.encoding, self.tokenizer)
        self.bad_files: BadFiles | None = None

    @cached_property
    def base(self) -> Path:
        """What the videos' paths are below."""
        return self.root.parent if self.root.is_file() else self.root

    def run(self) -> str:
        """Encode what is not there yet; returns what was done, in a sentence.

        Raises:
            DataError: there is nothing that can be used.
            ConfigError: the token folder was made by another tokenizer, or in another way.
            RunFolderInUseError: another process writes there.
            StorageError: it cannot be written to.
        """
        files = [self.root] if self.root.is_file() else find_files(self.root, "VIDEOS", VIDEO_FILES.suffixes)
        mine = files[self.process.rank :: self.process.count]
        placed(self.tokenizer, self.encoding.device, self.process.local_rank)
        with self._lock():
            self._describe()
            suffix = f"-{self.process.rank:03}" if self.process.count > 1 else ""
            self.bad_files = BadFiles(self.out / f"bad_files{suffix}.jsonl", max_fraction=1.0, max_files=0)
            done = set(Tokens(self.out).paths)
            left = [file for file in mine if self._name(file) not in done]
            found = look_into(
                left, VIDEO_FILES, self.encoding.workers, self.encoding.limits, self.encoding.index, self.bad_files
            )
            encoded = self._encode(list(found.values())) if found else 0
            if left and not encoded and not done:
                raise DataError(
                    f"None of the {len(mine)} files of {self.root} can be used ({self.bad_files.summary()}). They are "
                    f"listed in {self.bad_files.file}."
                )
        already = len(mine) - len(left)
        bad = f", {len(left) - encoded} cannot be used ({self.bad_files.summary()})" if encoded < len(left) else ""
        return f"{counted(encoded, 'video')} encoded{f', {already} already there' if already else ''}{bad}"

    def _encode(self, videos: list[VideoFile]) -> int:
        streams = _balanced([len(self.reading.positions(video)) for video in videos], max(1, self.encoding.workers))
        total = sum(len(self.reading.positions(video)) for video in videos)
        bar = tqdm(total=total, unit="frame", unit_scale=True, disable=None if self.process.rank == 0 else True)
        with ExitStack() as stack:
            stack.enter_context(closing(bar))
            writers = [stack.enter_context(closing(self._writer(number))) for number in range(len(streams))]
            finished, waiting = 0, None
            for job, writer, clip in self._batches(videos, streams, writers):
                codes = codes_of(self.tokenizer, clip, self.encoding.work) if len(clip) else None
                if waiting is not None:  # while the device computes these
                    finished += self._write(*waiting)
                waiting = videos[job[0]], job[1], writer, codes
                bar.update(len(clip))
            if waiting is not None:
                finished += self._write(*waiting)
        return finished

    def _batches(
        self, videos: list[VideoFile], streams: list[list[int]], writers: list[ShardWriter]
    ) -> Iterator[tuple[tuple[int, int], ShardWriter, Tensor]]:
        """Batches as (video, first frame), where they are written, and their frames; bad videos are left out."""
        assert self.bad_files is not None
        watch = Watch(self.encoding.workers, self.encoding.limits)
        cut_off = {n for n, v in enumerate(videos) if self.bad_files.reasons.get(str(v.path), "").startswith(CUT_OFF)}
        source = Frames(videos, self.reading, self.encoding.batch_frames, watch, cut_off)
        counts = [len(self.reading.positions(video)) for video in videos]

        def order(position: int) -> Iterator[tuple[int, int] | None]:
            return itertools.islice(in_turn(streams, counts, self.encoding.batch_frames), position, None)

        over: set[int] = set()  # videos of which nothing more is wanted
        read: Any = supervised(source, order, watch, source.lose)
        with closing(read):
            for job, writer, result in zip(order(0), itertools.cycle(writers), read):
                if job is None or job[0] in over:
                    continue
                video, first = job
                if isinstance(result, str):
                    over.add(video)
                    self.bad_files.add(videos[video].path, result)
                    continue
                if len(result) < min(self.encoding.batch_frames, counts[video] - first):
                    over.add(video)
                yield job, writer, result

    def _write(self, video: VideoFile, first: int, writer: ShardWriter, codes: Tensor | None) -> int:
        """Write a batch's codes; returns 1 where the video is over, else 0."""
        if first == 0:
            writer.give_up()  # what a bad video has left
        if codes is not None:
            writer.add(codes.cpu().numpy().astype(writer.dtype))
        time_base, times = self.reading.times(video)
        last = first + (0 if codes is None else len(codes))
        if last == first + self.encoding.batch_frames < len(times):
            return 0
        writer.finish(self._name(video.path), time_base, times[:last], *self.reading.size(video))
        return 1

    def _writer(self, stream: int) -> ShardWriter:
        name = f"shard-{self.process.rank:03}-{stream:02}"
        dtype = smallest_type(self.tokenizer.quantizer.codebook_size)
        return ShardWriter(self.out, name, dtype, self.encoding.shard_megabytes * 2**20)

    def _name(self, file: Path) -> str:
        return file.relative_to(self.base).as_posix()

    def _lock(self) -> AcquireReturnProxy[FileLock]:
        lock = FileLock(self.out / f".lock-{self.process.rank:03}")
        with storing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            try:
                return lock.acquire(timeout=0)
            except Timeout:
                raise RunFolderInUseError(
                    f"Another process writes to {self.out}. Wait for it, or choose another --out."
                ) from None

    def _describe(self) -> None:
        """Write the manifest, or find that the one that is there says the same."""
        quantizer = self.tokenizer.quantizer
        manifest = {
            "format": FORMAT,
            "tokenizer": self.tokenizer.sha256(),
            "codebook_size": quantizer.codebook_size,
            "dtype": smallest_type(quantizer.codebook_size).str,
            "reading": asdict(self.reading),
            "batch_frames": self.encoding.batch_frames,
            "precision": self.encoding.precision,
            "videos": str(self.base.resolve()),
            "description": self.tokenizer.description,
            "environment": environment(self.tokenizer.last_layer.device),
        }
        if not (self.out / MANIFEST).exists():
            replace_text(self.out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        before = read_manifest(self.out)
        for key in COMMON:
            if before.get(key) != manifest[key]:
                raise ConfigError(
                    f"{self.out} holds tokens of another kind: {key} was {before.get(key)} and is {manifest[key]}. "
                    "Choose another --out."
                )


class Frames(Dataset[Any]):
    """Batches of frames by (video, first frame); the reason where they cannot be read.

    Of videos that are `cut_off` a batch has the frames before the first that cannot be read, perhaps none.
    """

    def __init__(
        self,
        videos: Sequence[VideoFile],
        reading: Reading,
        batch_frames: int,
        watch: Watch,
        cut_off: Collection[int] = (),
    ) -> None:
        self.videos, self.reading, self.batch_frames, self.watch = videos, reading, batch_frames, watch
        self.cut_off = cut_off
        self.lost: dict[int, str] = {}
        self.open: tuple[int, FrameStream] | None = None  # by the process that reads

    def lose(self, video: int, _: int, reason: str) -> str:
        """Leave a video out that has ended the process that read it; returns its name."""
        self.lost[video] = reason
        return str(self.videos[video].path)

    def __getitem__(self, job: tuple[int, int] | None) -> Tensor | str | None:
        """A batch, uint8 (time, height, width, rgb)."""
        if job is None:
            return None
        video, first = job
        if video in self.lost:
            return self.lost[video]
        try:
            with self.watch.reading(video):
                return self._read(video, first)
        except UnusableError as error:
            self.lost[video] = str(error)
            return str(error)

    def _read(self, video: int, first: int) -> Tensor:
        stream = self._stream(video)
        count = min(self.batch_frames, len(stream.positions) - first)
        while True:
            try:
                return torch.from_numpy(self.reading.crop(stream.read(first, count)))
            except UnusableError:
                count -= 1
                if video not in self.cut_off or (first == count == 0):
                    raise
            if count == 0:
                return torch.empty(0, dtype=torch.uint8)

    def _stream(self, video: int) -> FrameStream:
        if self.open is None or self.open[0] != video:
            if self.open is not None:
                self.open[1].close()
            self.open = video, self.reading.open(self.videos[video])
        return self.open[1]


def _balanced(frames: Sequence[int], count: int) -> list[list[int]]:
    """Videos dealt out to `count` streams so that each has about as many frames."""
    streams: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for video in sorted(range(len(frames)), key=lambda v: -frames[v]):
        lightest = loads.index(min(loads))
        streams[lightest].append(video)
        loads[lightest] += frames[video]
    return streams


def in_turn(
    streams: Sequence[Sequence[int]], counts: Sequence[int], batch_frames: int
) -> Iterator[tuple[int, int] | None]:
    """One batch of each stream after the other: reading processes take them in turn, so each goes on in its video.

    None stands for a stream that is over.
    """

    def jobs(videos: Sequence[int]) -> Iterator[tuple[int, int]]:
        return ((video, first) for video in videos for first in range(0, counts[video], batch_frames))

    return itertools.chain.from_iterable(itertools.zip_longest(*map(jobs, streams)))
