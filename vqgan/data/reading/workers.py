"""Reading in processes that may crash or hang: their work is given out anew, and what keeps ending them is left out."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from vqgan.data.reading.limits import Limits, allocated, memory_limit, time_limit
from vqgan.data.reading.pool import Pool
from vqgan.data.reading.shared import Shared
from vqgan.errors import DataError, UnusableError
from vqgan.runtime.device import keep_freed_memory

MAX_RESTARTS = 3  # of the workers without a batch between them
CHANCES = 2  # how often a file may end or block its worker: the first time may have had another cause
POLL = 0.5  # seconds between looks at the workers
START = 120  # seconds that a worker may take to begin, at least: it imports what the data set is made of
ANSWER = 10  # seconds that a storage has to give some bytes of a file
LOOKS = 9  # places of a file that are read to see whether it can be
NOTHING = -1
PROCESS, SUBJECT, BEGUN, SPENT = range(4)  # of a worker: its number, what it reads, how many it began, nanoseconds


class WorkerError(Exception):
    """A worker died, or some are `stalled` and finish nothing any more; `subjects` are what they were reading."""

    def __init__(self, reason: str, workers: Sequence[int], subjects: Sequence[int], stalled: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.workers, self.subjects, self.stalled = reason, workers, subjects, stalled


class Watch:
    """Knows what each worker is reading, and how long it has made no progress.

    Args:
        workers: how many processes; 0 for this one.
        limits: of each read.
    """

    def __init__(self, workers: int, limits: Limits) -> None:
        self.workers, self.limits = workers, limits
        self.memory = Shared(32 * max(workers, 1))
        self.allowance = limits.megabytes // min(max(workers, 1), 2)
        self.worker: int | None = None  # which one this process is
        self.allocated = 0  # by a worker when it begins

    @property
    def slots(self) -> Int[np.ndarray, "workers 4"]:
        """What each worker does, in memory that it shares."""
        return self.memory.bytes().view(np.int64).reshape(-1, 4)

    @property
    def spent(self) -> float:
        """Processor's seconds that reading has taken, in all processes."""
        return float(self.slots[:, SPENT].sum()) / 1e9

    def begin(self, worker: int) -> None:
        """The first thing that a worker does."""
        torch.set_num_threads(1)
        keep_freed_memory(False)  # what one large file took is not the next one's
        self.worker, self.allocated = worker, allocated()
        self.slots[worker, PROCESS] = os.getpid()

    @contextlib.contextmanager
    def reading(self, subject: int) -> Iterator[None]:
        """While `subject` is read, within the limits.

        Raises:
            UnusableError: it took too long or too much memory.
        """
        slot = self.slots[self.worker or 0]
        slot[SUBJECT] = subject
        slot[BEGUN] += 1
        before = time.process_time_ns()  # of all threads: FFmpeg decodes in several
        try:
            with (
                time_limit(self.limits.seconds),
                memory_limit(None if self.worker is None else self.allowance, self.allocated),
            ):
                yield
        except MemoryError:
            raise UnusableError(f"too large: needs more than {self.allowance} MB") from None
        finally:
            slot[SUBJECT] = NOTHING
            slot[SPENT] += time.process_time_ns() - before

    def start(self, pool: Pool, workers: Iterable[int]) -> None:
        """Start workers, whatever became of those that were there."""
        for worker in workers:
            pool.end(worker)
            self.slots[worker, :SPENT] = 0, NOTHING, 0
        pool.start()

    def take(self, pool: Pool) -> tuple[Exception | None, Any]:
        """What reading raised, and the next result.

        Raises:
            StopIteration: there is none.
            WorkerError: it will not come.
        """
        seen, since = self.slots.copy(), time.monotonic()
        while True:
            try:
                return pool.take(POLL)
            except TimeoutError:
                now, awaited = self.slots, pool.turn
                waited = time.monotonic() - since
                if (now[awaited, :SPENT] != seen[awaited, :SPENT]).any():
                    seen, since = now.copy(), time.monotonic()
                elif waited > self.limits.stall_seconds and (now[awaited, PROCESS] or waited > START):
                    stalled = (now[:, :SPENT] == seen[:, :SPENT]).all(1) & (now[:, SUBJECT] != NOTHING)
                    stalled[awaited] = True
                    raise self._fault(
                        f"nothing was read for {self.limits.stall_seconds:g} seconds", np.flatnonzero(stalled), True
                    ) from None
            except EOFError:
                code = pool.end(pool.turn)
                said = f"signal {-code}" if code < 0 else f"exit code {code}"
                raise self._fault(f"a worker process ended with {said}", np.array([pool.turn])) from None

    def _fault(self, reason: str, workers: Int[np.ndarray, "some"], stalled: bool = False) -> WorkerError:
        subjects = [int(subject) for subject in self.slots[workers, SUBJECT] if subject != NOTHING]
        return WorkerError(reason, workers.tolist(), subjects, stalled)


def supervised(
    dataset: Any,
    jobs: Iterable[Any],
    watch: Watch,
    lose: Callable[[int, int, str], str],
    collate: Callable[[list[Any]], Any] | None = None,
    file_of: Callable[[int], Path] | None = None,
) -> Generator[Any, None, None]:
    """What `dataset` gives for each of `jobs`, in order, each exactly once, whatever happens to the workers.

    Args:
        dataset: reads under `watch.reading(subject)`; with workers it, and what it gives, can be pickled.
        jobs: the numbers to read: lists of them with `collate`, which `__getitems__` of the data set takes, else
            single ones. They are drawn a little ahead.
        watch: over as many workers as there will be.
        lose: called with (subject, position, reason) when a subject has ended its worker twice. It must make the
            dataset give something else for it from that position on, and returns its name.
        collate: makes one result of those of a list; runs where they are read.
        file_of: the file of a subject, or what stands in it. Where workers stall over files that nobody can read, the
            storage is at fault: no subject is suspected.

    Raises:
        ConfigError: the data set cannot be sent to workers.
        DataError: the workers fail again and again at one position.
        VQGANError: reading raised it, here or in another process.
    """
    answer = partial(_answer, dataset, collate)
    if not watch.workers:
        for job in jobs:
            yield answer(job)
        return
    position, restarts = 0, 0
    suspicions: Counter[int] = Counter()
    with closing(Pool(watch.begin, answer, watch.workers, jobs)) as pool:
        watch.start(pool, range(watch.workers))
        while True:
            try:
                error, result = watch.take(pool)
            except StopIteration:
                return
            except WorkerError as fault:
                restarts += 1
                if fault.stalled and fault.subjects and file_of is not None:
                    files = [file_of(subject) for subject in fault.subjects]
                    if not _can_be_read(files):
                        fault = _no_storage(fault, str(files[0]), restarts)
                suspicions.update(fault.subjects)
                lost = [s for s in fault.subjects if suspicions[s] == CHANCES]
                names = [lose(subject, position, fault.reason) for subject in lost]
                if restarts > MAX_RESTARTS and not lost:
                    raise DataError(
                        f"Reading failed {restarts} times in a row: {fault.reason}. If memory is short, take fewer "
                        "data.workers or a smaller data.batch_size; data.workers=0 reads in the training process."
                    ) from None
                what = f"; {', '.join(names)} is left out from now on" if names else ""
                warnings.warn(f"Reading goes on with new worker processes: {fault.reason}{what}.", stacklevel=2)
                # What the others have read ahead may be of what is lost.
                watch.start(pool, range(watch.workers) if lost else fault.workers)
            else:
                if error is not None:
                    raise error
                yield result
                position, restarts = position + 1, 0


def read_jobs(
    read: Callable[..., Any],
    jobs: Iterable[tuple[int, ...] | None],
    workers: int,
    limits: Limits,
    file_of: Callable[[int], Path],
    whole: bool = False,
) -> Generator[Any, None, None]:
    """What `read(*job)` gives for each job in order, None for a job that is None; the reason as text where it cannot.

    Of several workers each takes every so-many-th job.

    Args:
        read: can be pickled; raises `UnusableError`.
        jobs: the first number of each is of the file that is read.
        workers: how many processes; 0 for this one.
        limits: of each read.
        file_of: see `supervised`.
        whole: a file of which one job was unusable is not read again.

    Raises:
        DataError: the workers fail again and again at one position.
    """
    watch = Watch(workers, limits)
    reads = _Reads(read, watch, whole)

    def lose(subject: int, _: int, reason: str) -> str:
        reads.lost[subject] = reason
        return str(file_of(subject))

    return supervised(reads, jobs, watch, lose, file_of=file_of)


def _answer(dataset: Any, collate: Callable[[list[Any]], Any] | None, job: Any) -> Any:
    return dataset[job] if collate is None else collate(dataset.__getitems__(job))


class _Reads:
    def __init__(self, read: Callable[..., Any], watch: Watch, whole: bool) -> None:
        self.read, self.watch, self.whole = read, watch, whole
        self.lost: dict[int, str] = {}

    def __getitem__(self, job: tuple[int, ...] | None) -> Any:
        if job is None:
            return None
        subject = job[0]
        if subject in self.lost:
            return self.lost[subject]
        try:
            with self.watch.reading(subject):
                return self.read(*job)
        except UnusableError as error:
            if self.whole:
                self.lost[subject] = str(error)
            return str(error)


def _no_storage(fault: WorkerError, file: str, times: int) -> WorkerError:
    """What to say of it, without a suspicion.

    Raises:
        DataError: it has lasted too long.
    """
    said = f"{fault.reason}, and the storage of {file} gives no bytes of it to another process either"
    if times > MAX_RESTARTS:
        raise DataError(f"Reading failed {times} times in a row: {said}. When it does, the same command goes on.")
    return WorkerError(said, fault.workers, [])


def _can_be_read(files: Sequence[Path]) -> bool:
    """Whether some bytes of each can be had, or an error instead: asked by a process that may wait for ever."""
    with closing(Pool(int, _look_at, 1, [files])) as asked:
        asked.start()
        try:
            asked.take(ANSWER)
        except TimeoutError:
            return False
        except EOFError:
            pass
        return True


def _look_at(files: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        for path in files:
            file = path if path.is_file() else path.parent  # a clip of a tar has the tar above it
            if not file.is_file():  # a FIFO would block whoever opens it
                continue
            with file.open("rb", buffering=0) as content:
                last = content.seek(0, os.SEEK_END) - 1
                for look in range(LOOKS):
                    content.seek(max(0, last * look // (LOOKS - 1)))
                    content.read(1)
