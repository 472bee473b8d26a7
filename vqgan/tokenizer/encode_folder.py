"""Encoding a folder of videos: what is left to do, read by several processes, written so that a kill costs little."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from vqgan.backbones import Memory
from vqgan.data import BadFiles
from vqgan.data.reading.bad_files import ledger
from vqgan.data.reading.files import look_into
from vqgan.data.reading.share import Share
from vqgan.data.reading.streams import dealt_out, in_turn
from vqgan.data.reading.workers import read_jobs
from vqgan.data.videos import VIDEO_FILES
from vqgan.errors import DataError, UnusableError
from vqgan.files.continued import go_on_with
from vqgan.files.lock import hold, looked_after
from vqgan.files.writing import replace_text
from vqgan.runs.provenance import environment
from vqgan.runtime.process import Process, this_process
from vqgan.text import counted
from vqgan.tokenizer.encode import Encoding, is_cut_off, read_batch, reading_for
from vqgan.tokenizer.inference import Parts, encode_batch, move_to, parts_for
from vqgan.tokenizer.tokenizer import Tokenizer
from vqgan.tokens.folder import Tokens
from vqgan.tokens.records import COMMON, FORMAT, MANIFEST, read_manifest, smallest_type
from vqgan.tokens.side import Side, read_beside, write_side
from vqgan.tokens.writer import ShardWriter, repair
from vqgan.video.file import VideoFile
from vqgan.video.reader import FrameStream
from vqgan.video.times import Reading


@dataclass
class _Batch:
    video: VideoFile
    first: int  # of its frames
    frames: UInt8[Tensor, "time height width rgb"]  # perhaps none, of a video that is cut off
    is_last: bool  # of its video


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
        self.share = Share(self.root, self.process)
        self.reading = reading_for(self.encoding, self.tokenizer)
        self.parts = parts_for(self.tokenizer, self.encoding.batch_frames)
        self.dtype = smallest_type(self.tokenizer.quantizer.codebook_size)

    def run(self) -> str:
        """Encode what is not there yet; returns what was done, in a sentence.

        Raises:
            DataError: there is nothing that can be used.
            ConfigError: the token folder was made by another tokenizer, in another way, or of other videos.
            RunFolderInUseError: another process writes there.
            StorageError: it cannot be written to.
        """
        move_to(self.tokenizer, self.encoding.device)
        with hold(self.out, self.process.rank):
            self._describe()
            for rank in looked_after(self.out, self.process):
                for listed in sorted(self.out.glob(f"shard-{rank:03}-*.jsonl")):
                    repair(listed.with_suffix(".bin"), self.dtype.itemsize)
            bad_files = ledger(self.out, self.process)
            self.share.leave_out({record.path: record.state for record, _ in Tokens(self.out).records}, self.out)
            left = self.share.left
            found = look_into(
                left, VIDEO_FILES, self.encoding.workers, self.encoding.limits, self.encoding.index, bad_files
            )
            found = self._with_side_data(found, bad_files)
            encoded = self._encode(list(found.values()), bad_files) if found else 0
            self.share.refuse_if_none(encoded, bad_files)
        already = len(self.share.files) - len(left)
        bad = f", {bad_files.said()}" if bad_files.reasons else ""
        return f"{counted(encoded, 'video')} encoded{f', {already} already there' if already else ''}{bad}"

    def _with_side_data(self, found: dict[Path, VideoFile], bad_files: BadFiles) -> dict[Path, VideoFile]:
        """The videos without those whose side data do not fit their frames."""
        fitting = {}
        for path, video in found.items():
            try:
                read_beside(path, len(video.pts), is_cut_off(bad_files.reasons.get(str(path))))
                fitting[path] = video
            except UnusableError as error:
                bad_files.add(path, str(error))
        return fitting

    def _encode(self, videos: list[VideoFile], bad_files: BadFiles) -> int:
        counts = [len(self.reading.positions(video)) for video in videos]
        longest_first = sorted(range(len(counts)), key=lambda video: -counts[video])
        streams = dealt_out(longest_first, counts, max(1, self.encoding.workers))
        bar = tqdm(total=sum(counts), unit="frame", unit_scale=True, disable=None if self.process.rank == 0 else True)
        with ExitStack() as stack:
            stack.enter_context(closing(bar))
            writers = [stack.enter_context(closing(self._writer(number))) for number in range(len(streams))]
            finished, waiting = 0, None
            memories = [Memory() for _ in streams]  # of the video that each stream is in
            batches = self._batches(videos, counts, streams, bad_files)
            for batch, stream, writer in zip(batches, itertools.cycle(range(len(streams))), itertools.cycle(writers)):
                if batch is None:
                    continue
                if batch.first == 0:
                    memories[stream] = Memory()
                codes = self._codes(batch, memories[stream])
                if waiting is not None:  # while the device computes these
                    finished += self._write(*waiting)
                waiting = batch, writer, codes
                bar.update(len(batch.frames))
            if waiting is not None:
                finished += self._write(*waiting)
        return finished

    def _codes(self, batch: _Batch, memory: Memory) -> Tensor | None:
        """Those of a batch, on the device; None for one without frames."""
        if not len(batch.frames):
            return None
        return encode_batch(self.tokenizer, batch.frames, self.encoding.work, memory)

    def _batches(
        self, videos: list[VideoFile], counts: list[int], streams: list[list[int]], bad_files: BadFiles
    ) -> Iterator[_Batch | None]:
        """Batches of each stream in turn; None where there is none, since a video is bad or the stream is over."""
        cut_off = {n for n, v in enumerate(videos) if is_cut_off(bad_files.reasons.get(str(v.path)))}
        source = Frames(videos, self.reading, self.parts, cut_off)

        def order() -> Iterator[tuple[int, int] | None]:
            return in_turn(streams, counts, self.parts.firsts)

        over: set[int] = set()  # videos of which nothing more is wanted
        read: Generator[Tensor | str, None, None] = read_jobs(
            source.read, order(), self.encoding.workers, self.encoding.limits,
            file_of=lambda video: videos[video].path, whole=True,
        )  # fmt: skip
        with closing(read):
            for job, result in zip(order(), read):
                video, first = job or (-1, 0)
                if job is None or video in over:
                    yield None
                elif isinstance(result, str):
                    over.add(video)
                    bad_files.add(videos[video].path, result)
                    yield None
                else:
                    after = first + len(result)
                    if after == counts[video] or len(result) < self.parts.length(first):
                        over.add(video)
                    yield _Batch(videos[video], first, result, video in over)

    def _write(self, batch: _Batch, writer: ShardWriter, codes: Tensor | None) -> int:
        """Write a batch's codes; returns 1 where the video is over, else 0."""
        if batch.first == 0:
            writer.give_up()  # what a bad video has left
        if codes is not None:
            writer.add(codes.cpu().numpy().astype(writer.dtype))
        if not batch.is_last:
            return 0
        time_base, times = self.reading.times(batch.video)
        times = times[: batch.first + len(batch.frames)]
        name = self.share.name(batch.video.path)
        # Before the line, which says that all of the video is there.
        write_side(self.out, name, self._rows(batch.video, len(times)))
        writer.finish(name, time_base, times, *self.reading.size(batch.video), self.share.states[name])
        return 1

    def _rows(self, video: VideoFile, frames: int) -> Side | None:
        try:
            rows = read_beside(video.path, len(video.pts), is_cut_off=True)  # it was asked before
        except UnusableError as error:
            raise DataError(f"{video.path} has changed while it was encoded: {error}.") from None
        return None if rows is None else rows[self.reading.positions(video)[:frames]]

    def _writer(self, stream: int) -> ShardWriter:
        name = f"shard-{self.process.rank:03}-{stream:02}"
        return ShardWriter(self.out, name, self.dtype, self.encoding.shard_megabytes * 2**20)

    def _describe(self) -> None:
        """Write the manifest, or go on with the one that is there."""
        quantizer = self.tokenizer.quantizer
        manifest = {
            "format": FORMAT,
            "tokenizer": self.tokenizer.sha256(),
            "run": self.tokenizer.source,
            "codes": self.tokenizer.sha256_of_codes(),
            "codebook_size": quantizer.codebook_size,
            "depth": quantizer.depth,
            "dtype": self.dtype.str,
            "reading": asdict(self.reading),
            "temporal_downsampling": self.tokenizer.downsampling.time,
            "batch_frames": self.encoding.batch_frames,
            "precision": self.encoding.precision,
            "videos": str(self.share.base.resolve()),
            "description": self.tokenizer.description,
            "environment": environment(self.tokenizer.last_layer.device, self.encoding.precision),
        }
        go_on_with(self.out / MANIFEST, manifest, COMMON, "encode")
        before = read_manifest(self.out)
        if before["format"] != FORMAT:  # lines of the new one are added from here on
            replace_text(self.out / MANIFEST, json.dumps({**before, "format": FORMAT}, indent=1) + "\n")


class Frames:
    """Batches of frames of `videos`, of which those that are `cut_off` end at the first that cannot be read."""

    def __init__(
        self, videos: Sequence[VideoFile], reading: Reading, parts: Parts, cut_off: Collection[int] = ()
    ) -> None:
        self.videos, self.reading, self.parts, self.cut_off = videos, reading, parts, cut_off
        self.open: tuple[int, FrameStream] | None = None  # by the process that reads

    def read(self, video: int, first: int) -> UInt8[Tensor, "time height width rgb"]:
        """The batch from frame `first` of a video on; of one that is cut off perhaps without a frame.

        Raises:
            UnusableError: it cannot be read.
        """
        length = self.parts.length(first)
        frames = read_batch(self._stream(video), self.reading, first, length, video in self.cut_off)
        return torch.from_numpy(frames)

    def _stream(self, video: int) -> FrameStream:
        if self.open is None or self.open[0] != video:
            if self.open is not None:
                self.open[1].close()
            self.open = video, self.reading.open(self.videos[video])
        return self.open[1]
