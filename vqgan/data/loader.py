"""Batches without end, each a function of (seed, number)."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vqgan.data.folder import BadFiles, ClipDataset, UnusableError
from vqgan.errors import DataError
from vqgan.signals import STOP_SIGNALS

Failures = list[tuple[str, str]]  # path, reason
READERS = 4
MAX_REPLACEMENTS = 100  # clips tried in place of a bad one before the data are called unusable


class Loader:
    """Draws training batches.

    Batch n holds the clips n·batch_size … of one endless sequence that passes over all clips in a new order each
    epoch. Order and augmentation are functions of (seed, position in the sequence), so neither the number of workers
    nor an interruption changes a batch. A clip that cannot be read is replaced by others drawn by the same rule.

    Args:
        dataset: the clips.
        batch_size: clips per batch.
        workers: reading processes; 0 reads in this one.
        seed: of order and augmentation.
        bad_files: where clips that cannot be read are written down.
    """

    def __init__(self, dataset: ClipDataset, batch_size: int, workers: int, seed: int, bad_files: BadFiles) -> None:
        self.dataset, self.batch_size, self.workers, self.bad_files = dataset, batch_size, workers, bad_files
        self.sequence = _Sequence(dataset, seed)

    def batches(self, first: int) -> Iterator[UInt8[Tensor, "batch time height width rgb"]]:
        """Batches `first`, `first` + 1, … without end.

        Raises:
            DataError: too many clips cannot be read.
        """
        numbers = (range(n * self.batch_size, (n + 1) * self.batch_size) for n in count(first))
        loader = DataLoader(
            self.sequence,
            batch_sampler=_Endless(numbers),
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
        )
        for clips, failures in loader:
            for path, reason in failures:
                self.bad_files.add(path, reason)
            if clips is None:
                path, reason = failures[-1]
                raise DataError(
                    f"{MAX_REPLACEMENTS} clips in a row cannot be read; the last was of {path} ({reason}). "
                    f"They are listed in {self.bad_files.file}."
                )
            yield clips


class _Endless(torch.utils.data.Sampler[list[int]]):
    def __init__(self, numbers: Iterator[range]) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self.numbers)


class _Sequence(Dataset[tuple[Tensor | None, Failures]]):
    """The endless sequence of clips, by position; None where neither a clip nor its replacements can be read."""

    def __init__(self, dataset: ClipDataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, number: int) -> tuple[Tensor | None, Failures]:
        epoch, position = divmod(number, len(self.dataset))
        rng = np.random.default_rng([self.seed, number])
        index = int(_order(len(self.dataset), self.seed, epoch)[position])
        failures: Failures = []
        for _ in range(MAX_REPLACEMENTS):
            try:
                return self.dataset.read(index, rng), failures
            except UnusableError as error:
                failures.append((str(self.dataset.path(index)), str(error)))
                index = int(rng.integers(len(self.dataset)))
        return None, failures


def read_evenly(dataset: ClipDataset, most: int, bad_files: BadFiles) -> UInt8[Tensor, "batch time height width rgb"]:
    """At most `most` clips, evenly spread over the data set; those that cannot be read are written down and left out.

    Raises:
        DataError: none can be read.
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int)).tolist()

    def read(index: int) -> Tensor | UnusableError:
        try:
            return dataset[index]
        except UnusableError as error:
            return error

    with ThreadPoolExecutor(READERS) as threads:  # decoding releases the interpreter lock
        results = list(threads.map(read, indices))
    for index, result in zip(indices, results):
        if isinstance(result, UnusableError):
            bad_files.add(dataset.path(index), str(result))
    clips = [result for result in results if isinstance(result, Tensor)]
    if not clips:
        raise DataError(f"None of the {len(indices)} validation clips can be read ({bad_files.summary()}).")
    return torch.stack(clips)


@functools.lru_cache(maxsize=4)
def _order(clips: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng([seed, epoch, clips]).permutation(clips)


def _collate(samples: list[tuple[Tensor | None, Failures]]) -> tuple[Tensor | None, Failures]:
    clips = [clip for clip, _ in samples if clip is not None]
    failures = [failure for _, failures in samples for failure in failures]
    return torch.stack(clips) if len(clips) == len(samples) else None, failures


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A signal to the whole process group is the training process's business: it saves, and ends its workers.
    for name in STOP_SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
