"""Writing a folder of videos to shards: what is left to do, by several processes, so that a kill costs little."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from vqgan.data import BadFiles
from vqgan.data.folder import name_hash
from vqgan.data.reading.bad_files import ledger
from vqgan.data.reading.files import look_into
from vqgan.data.reading.share import Share
from vqgan.data.reading.streams import dealt_out, in_turn
from vqgan.data.reading.workers import read_jobs
from vqgan.data.sharding.clips import Clips, Sharding
from vqgan.data.sharding.index import FORMAT, MANIFEST
from vqgan.data.sharding.writer import TarWriter, listed, made_of, write_index
from vqgan.data.videos import VIDEO_FILES
from vqgan.files.continued import go_on_with
from vqgan.files.lock import hold, looked_after
from vqgan.runtime.process import Process, this_process
from vqgan.runtime.signals import undisturbed
from vqgan.text import counted
from vqgan.video.file import VideoFile


@dataclass
class FolderSharder:
    """Writes a folder of videos, or the part of it that is this process's, to shards.

    Args:
        sharding: how.
        root: the folder, or one video.
        out: the folder of the shards; what it holds already is not done again.
    """

    sharding: Sharding
    root: Path
    out: Path

    def __post_init__(self) -> None:
        self.process: Process = this_process()
        # In an order of chance: what a few shards hold is a sample of all videos, as training mixes the clips of a few.
        self.share = Share(self.root, self.process, lambda name: name_hash(f"order of {name}"))

    def run(self) -> str:
        """Write what is not there yet; returns what was done, in a sentence.

        Raises:
            DataError: there is nothing that can be used.
            ConfigError: the folder holds shards that were written in another way, or of other videos.
            RunFolderInUseError: another process writes there.
            StorageError: it cannot be written to.
        """
        with hold(self.out, self.process.rank):
            for rank in looked_after(self.out, self.process):
                for unfinished in self.out.glob(f".shard-{rank:03}-*.unfinished"):
                    unfinished.unlink()  # of a process that was killed
            go_on_with(self.out / MANIFEST, {**self._manifest(), "shards": []}, ("format", "writing"), "shard")
            bad_files = ledger(self.out, self.process)
            self.share.leave_out(made_of(line for _, lines in listed(self.out) for line in lines), self.out)
            left, sharding = self.share.left, self.sharding
            found = look_into(left, VIDEO_FILES, sharding.workers, sharding.limits, sharding.index, bad_files)
            try:
                written, clips = self._write(list(found.values()), bad_files) if found else (0, 0)
            finally:  # of what is complete, also when it was stopped
                with undisturbed(), FileLock(self.out / ".lock-index"):
                    write_index(self.out, self._manifest())
        self.share.refuse_if_none(written, bad_files)
        already = len(self.share.files) - len(left)
        # Of a video that is damaged the parts that can be decoded are kept.
        bad = f", {counted(len(bad_files.reasons), 'bad file')} ({bad_files.summary()})" if bad_files.reasons else ""
        there = f", those of {already} were there already" if already else ""
        return f"{self.out}: {counted(clips, 'clip')} of {counted(written, 'video')} written{there}{bad}"

    def _write(self, videos: list[VideoFile], bad_files: BadFiles) -> tuple[int, int]:
        """Write the clips of all videos; returns how many videos gave some, and how many clips."""
        parts = [self.sharding.parts(video) for video in videos]
        counts = [len(edges) - 1 for edges in parts]
        streams = dealt_out(range(len(counts)), counts, max(1, self.sharding.workers))
        source = Clips(videos, self.sharding)

        def order() -> Iterator[tuple[int, int] | None]:
            return in_turn(streams, counts, range)

        given = [0] * len(videos)  # clips of each video
        read = read_jobs(
            source.read, order(), self.sharding.workers, self.sharding.limits, file_of=lambda video: videos[video].path
        )
        bar = tqdm(total=sum(counts), unit="clip", disable=None if self.process.rank == 0 else True)
        with ExitStack() as stack:
            stack.enter_context(closing(bar))
            writers = [stack.enter_context(closing(self._writer(number))) for number in range(len(streams))]
            stack.enter_context(closing(read))
            for job, result, writer in zip(order(), read, itertools.cycle(writers)):
                if job is None:
                    continue
                (video, part), path = job, videos[job[0]].path
                if isinstance(result, str):
                    bad_files.add(path, result)
                else:
                    suffix = ".mp4" if self.sharding.reencode else path.suffix.lower()
                    name = self.share.name(path)
                    writer.add(result, suffix, name, int(parts[video][part]), self.share.states[name])
                    given[video] += 1
                if part == counts[video] - 1:
                    writer.finish()
                bar.update()
        return sum(count > 0 for count in given), sum(given)

    def _writer(self, stream: int) -> TarWriter:
        name = f"shard-{self.process.rank:03}-{stream:02}"
        return TarWriter(self.out, name, self.sharding.shard_megabytes * 2**20)

    def _manifest(self) -> dict[str, Any]:
        return {"format": FORMAT, "writing": self.sharding.written}
