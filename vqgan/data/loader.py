"""Batches without end, each a function of (seed, number)."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vqgan.data.corpus import ClipDataset
from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.reading.limits import Limits
from vqgan.data.reading.workers import Watch, read_jobs, supervised
from vqgan.errors import DataError, UnusableError
from vqgan.runtime.process import ALONE, Process

Failures = list[tuple[str, str]]  # path, reason
MAX_REPLACEMENTS = 100  # clips tried in place of a bad one before the data are called unusable
REMEMBERED = 1024  # batches whose clips can be named


@dataclass
class Sample:
    """One clip of the sequence; None where neither it nor its replacements can be read."""

    clip: UInt8[Tensor, "time height width rgb"] | None
    source: dict[str, Any]  # path, clip, number in the sequence
    failures: Failures


@dataclass
class Batch:
    """Several of them, stacked."""

    clips: UInt8[Tensor, "batch time height width rgb"] | None
    sources: list[dict[str, Any]]
    failures: Failures


@dataclass
class ValidationClips:
    """What is validated on."""

    clips: UInt8[Tensor, "batch time height width rgb"]
    sources: list[str]  # the file of each clip
    videos: list[str]  # what it shares with clips that are not independent of it, see `ClipDataset.video`
    seconds: list[list[float] | None]  # when its frames are shown


class Loader:
    """Draws training batches.

    Batch n holds the clips n·batch_size … of one endless sequence that passes over all clips in a new order each
    epoch. Order and augmentation are functions of (seed, position in the sequence), so neither the number of workers
    nor an interruption changes a batch; of several processes each reads an equal share of it. A clip that cannot be
    read is replaced by others drawn by the same rule.

    Args:
        dataset: the clips.
        batch_size: clips per batch, of all processes together; a multiple of their number.
        workers: reading processes; 0 reads in this one.
        seed: of order and augmentation.
        bad_files: where clips that cannot be read are written down.
        limits: of each read.
        process: which share is read.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        workers: int,
        seed: int,
        bad_files: BadFiles,
        limits: Limits,
        process: Process = ALONE,
    ) -> None:
        self.dataset, self.batch_size, self.bad_files, self.process = dataset, batch_size, bad_files, process
        self.watch = Watch(workers, limits)
        self.sequence = EndlessClips(dataset, seed, self.watch)
        self.drawn: dict[int, list[dict[str, Any]]] = {}  # by number, what the newest batches hold
        self.lost: Iterable[dict[str, list[Any]]] = [self.sequence.lost]  # of each process
        self.told = set(bad_files.reasons)  # the bad files that all processes know

    @property
    def reading_seconds(self) -> float:
        """Processor's seconds that reading has taken, in this process and its workers."""
        return self.watch.spent

    @property
    def share(self) -> int:
        """Clips of a batch that this process reads."""
        return self.batch_size // self.process.count

    def batches(self, first: int) -> Generator[UInt8[Tensor, "share time height width rgb"], None, None]:
        """This process's share of batches `first`, `first` + 1, … without end.

        A worker that crashes or hangs is replaced. Close the generator in the end, as by `contextlib.closing`.

        Raises:
            DataError: too many clips cannot be read, or the workers end again and again.
        """
        size = self.batch_size

        begins = (n * size + self.process.rank * self.share for n in count(first))
        numbers = (list(range(begin, begin + self.share)) for begin in begins)

        def lose(clip: int, position: int, reason: str) -> str:
            path = str(self.dataset.path(clip))
            self.sequence.lost[path] = [(first + position) * size, reason]
            return path

        pinned = torch.cuda.is_available()  # the device reads such memory directly, while other work goes on
        with closing(supervised(self.sequence, numbers, self.watch, lose, _collate, self.dataset.path)) as batches:
            for number, batch in enumerate(batches, start=first):
                for path, reason in batch.failures:
                    self.bad_files.add(path, reason)
                if batch.clips is None:
                    path, reason = batch.failures[-1]
                    raise DataError(
                        f"{MAX_REPLACEMENTS} clips in a row cannot be read; the last was of {path} ({reason}). "
                        f"They are listed in {self.bad_files.file}."
                    )
                self.drawn[number] = batch.sources
                self.drawn.pop(number - REMEMBERED, None)
                yield batch.clips.pin_memory() if pinned else batch.clips

    def exchange(self) -> None:
        """Let all processes know which files each has found bad, for the first one's ledger and checkpoints.

        Raises:
            DataError: all together they are too many.
        """
        from vqgan.runtime.collectives import gather  # which takes torch's compiler, and reading does not

        news = {path: reason for path, reason in self.bad_files.reasons.items() if path not in self.told}
        told, self.lost = zip(*gather((news, self.sequence.lost)))
        for path, reason in (item for found in told for item in found.items()):
            self.told.add(path)
            self.bad_files.add(path, reason)

    def state_dict(self) -> dict[str, Any]:
        """The files that ended their workers, and from where in the sequence on each process leaves them out."""
        return {"lost": [dict(lost) for lost in self.lost]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out the same files; those of all processes if there is another number of them."""
        lost: list[dict[str, list[Any]]] = state["lost"]
        same = len(lost) == self.process.count
        self.sequence.lost = dict(
            lost[self.process.rank] if same else itertools.chain(*(part.items() for part in lost))
        )
        self.lost = [self.sequence.lost] if self.process.count == 1 else lost


class EndlessClips:
    """The endless sequence of clips, by position."""

    def __init__(self, dataset: ClipDataset, seed: int, watch: Watch) -> None:
        self.dataset, self.seed, self.watch = dataset, seed, watch
        self.lost: dict[str, list[Any]] = {}  # path: the position from which it is left out, reason

    def __getitem__(self, number: int) -> Sample:
        """The clip at a position, or what replaces it."""
        rng = np.random.default_rng([self.seed, number])
        index = self._index(number)
        failures: Failures = []
        for _ in range(MAX_REPLACEMENTS):
            path = str(self.dataset.path(index))
            since, reason = self.lost.get(path, (number + 1, ""))
            try:
                if number >= since:
                    raise UnusableError(reason)
                with self.watch.reading(index):
                    clip = self.dataset.read(index, rng)
                return Sample(clip, {"path": path, "clip": index, "number": number}, failures)
            except UnusableError as error:
                failures.append((path, str(error)))
                # Not from `rng`, which a failed read has used to some unknown extent.
                index = int(np.random.default_rng([self.seed, number, len(failures)]).integers(len(self.dataset)))
        return Sample(None, {}, failures)

    def __getitems__(self, numbers: list[int]) -> list[Sample]:
        """The clips of a batch, which are asked for all at once."""
        self.dataset.prefetch([self._index(number) for number in numbers])
        return [self[number] for number in numbers]

    def _index(self, number: int) -> int:
        epoch, position = divmod(number, len(self.dataset))
        return int(self.dataset.order(self.seed, epoch)[position])


def read_evenly(dataset: ClipDataset, most: int, bad_files: BadFiles, workers: int, limits: Limits) -> ValidationClips:
    """At most `most` clips, evenly spread over the data set; those that cannot be read are written down and left out.

    Of several processes all take the same clips: one that any of them cannot read is left out by all.

    Raises:
        DataError: none can be read.
    """
    from vqgan.runtime.collectives import gather

    with closing(stream_evenly(dataset, most, bad_files, workers, limits)) as stream:
        read = dict(stream)
    common = set.intersection(*map(set, gather(list(read))))
    clips = {index: clip for index, clip in read.items() if index in common}
    if not clips:
        raise none_readable(len(spread(len(dataset), most)), bad_files)
    sources, videos = ([str(of(index)) for index in clips] for of in (dataset.path, dataset.video))
    seconds = [dataset.seconds(index) for index in clips]
    return ValidationClips(torch.stack(list(clips.values())), sources, videos, seconds)


def stream_evenly(
    dataset: ClipDataset, most: int | None, bad_files: BadFiles, workers: int, limits: Limits
) -> Generator[tuple[int, UInt8[Tensor, "time height width rgb"]], None, None]:
    """The same clips one by one, each with its number, in order; all of them if `most` is None.

    Close it in the end, as by `contextlib.closing`.
    """
    indices = spread(len(dataset), most)
    read: Generator[Tensor | str, None, None] = read_jobs(
        dataset.__getitem__, ((index,) for index in indices), workers, limits, dataset.path
    )
    with closing(read):
        for index, result in zip(indices, read):
            if isinstance(result, str):
                bad_files.add(dataset.path(index), result)
            else:
                yield index, result


def spread(count: int, most: int | None) -> range | list[int]:
    """At most `most` of the numbers below `count`, evenly spread; all of them if `most` is None."""
    if most is None or most >= count:
        return range(count)
    numbers: list[int] = np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
    return numbers


def none_readable(clips: int, bad_files: BadFiles) -> DataError:
    """The error for so many clips of which none can be read."""
    return DataError(f"None of the {clips} validation clips can be read ({bad_files.summary()}).")


def _collate(samples: list[Sample]) -> Batch:
    clips = [sample.clip for sample in samples if sample.clip is not None]
    failures = [failure for sample in samples for failure in sample.failures]
    whole = len(clips) == len(samples)
    return Batch(torch.stack(clips) if whole else None, [sample.source for sample in samples], failures)
