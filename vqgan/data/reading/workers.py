"""Reading in processes that may crash or hang: their work is given out anew, and what keeps ending them is left out."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling as torch_signals

from vqgan.errors import DataError, UnusableError, VQGANError, check
from vqgan.runtime.device import keep_freed_memory
from vqgan.runtime.signals import STOP_SIGNALS

T = TypeVar("T")
MAX_RESTARTS = 3  # of the workers without a batch between them
CHANCES = 2  # how often a file may end or block its worker: the first time may have had another cause
POLL = 0.5  # seconds between looks at the workers
ANSWER = 10  # seconds that a storage has to give some bytes of a file
LOOKS = 9  # places of a file that are read to see whether it can be
NOTHING, PR_SET_PDEATHSIG = -1, 1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What reading one file may cost.

    Args:
        seconds: of computing for one clip, or for looking into one file; what takes longer is unusable.
        megabytes: beyond what its process had before (on Linux, with `workers` above 0); two or more workers have half
            of it each, so that two bad files at the same time do not take twice as much.
        stall_seconds: workers that finish nothing for so long are ended and replaced.
    """

    seconds: float
    megabytes: int
    stall_seconds: float

    def __post_init__(self) -> None:
        check(self.seconds > 0, "seconds", self.seconds, "positive")
        check(self.megabytes > 0, "megabytes", self.megabytes, "positive")
        check(self.stall_seconds > 0, "stall_seconds", self.stall_seconds, "positive")


class WorkerError(Exception):
    """Workers died, or are `stalled` and finish nothing any more; `subjects` are what they were reading."""

    def __init__(self, reason: str, subjects: Sequence[int], stalled: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.subjects, self.stalled = reason, subjects, stalled


class Watch:
    """Knows what each worker is reading, and how long it has made no progress.

    Args:
        workers: how many processes; 0 for this one.
        limits: of each read.
    """

    def __init__(self, workers: int, limits: Limits) -> None:
        self.workers, self.limits = workers, limits
        # Per worker: its process, the subject that it reads, and how many it has begun; in memory that it shares.
        self.slots = torch.zeros(max(workers, 1), 3, dtype=torch.int64).share_memory_()
        self.slots[:, 1] = NOTHING
        self.spent = torch.zeros(max(workers, 1), dtype=torch.float64).share_memory_()  # processor's seconds of reading
        self.processes: list[Any] = []
        self.asked: float | None = None  # since when `take` is waiting
        self.fault: tuple[str, list[int], bool] | None = None
        self.ended: threading.Event | None = None  # while there are processes
        self.allowance = limits.megabytes // min(max(workers, 1), 2)
        self.allocated = 0  # by a worker when it starts

    @contextlib.contextmanager
    def reading(self, subject: int) -> Iterator[None]:
        """While `subject` is read, within the limits.

        Raises:
            UnusableError: it took too long or too much memory.
        """
        worker = torch.utils.data.get_worker_info()
        slot = self.slots[worker.id if worker else 0]
        slot[1], slot[2] = subject, slot[2] + 1
        before = time.process_time()  # of all threads: FFmpeg decodes in several
        try:
            with _time_limit(self.limits.seconds), _memory_limit(self.allowance if worker else None, self.allocated):
                yield
        except MemoryError:
            raise UnusableError(f"too large: needs more than {self.allowance} MB") from None
        finally:
            slot[1] = NOTHING
            self.spent[worker.id if worker else 0] += time.process_time() - before

    def start(self, loader: DataLoader[T]) -> Iterator[T]:
        """Start the processes.

        torch's handler of a worker's death would raise in the middle of a training step. It is told nothing of these
        workers, at which `take` looks itself, and stays in place for whatever other loaders this process has.
        """
        with _torch_asleep():
            iterator = iter(loader)
            if getattr(iterator, "_worker_pids_set", False):
                _remove_worker_pids(id(iterator))
                iterator._worker_pids_set = False  # type: ignore[attr-defined]
        # Not `multiprocessing.active_children`: one that has died already would not be among them.
        self.processes = list(getattr(iterator, "_workers", []))
        self.fault = None
        if self.processes:
            self.ended = threading.Event()
            threading.Thread(target=self._watch, args=(iterator, self.ended), daemon=True, name="watch").start()
        return iterator

    def take(self, iterator: Iterator[T]) -> T:
        """The next result.

        Raises:
            StopIteration: there is none.
            WorkerError: it will not come.
        """
        self.asked = time.monotonic()
        try:
            return next(iterator)
        except (RuntimeError, OSError, EOFError):  # whatever a death looks like from here
            # A pipe breaks a moment before its process is gone, and a sentinel is a pipe too.
            ended = multiprocessing.connection.wait([process.sentinel for process in self.processes], POLL)
            for process in self.processes:
                if process.sentinel in ended:
                    process.join()
            fault = self.fault or self._died()
            if fault is None:
                raise
            raise WorkerError(*fault) from None
        finally:
            self.asked = None

    def stop(self, iterator: Iterator[Any]) -> None:
        """End the processes of what `start` gave; they hold nothing that could be lost."""
        if self.ended is not None:
            self.ended.set()
            self.ended = None
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        self.processes = []
        self.slots[:, 1] = NOTHING
        if hasattr(iterator, "_workers_done_event"):
            # The end of torch's iterator sets this event, and would wait for ever for the lock in it if one of the
            # processes was ended while it held that. Nobody is left to be told.
            iterator._workers_done_event = threading.Event()

    def _watch(self, iterator: Iterator[Any], ended: threading.Event) -> None:
        """In a thread: end all workers once what `take` waits for will not come.

        `take` itself can be stuck, for part of a result may have been sent, or be kept in a worker that hangs: either
        is over when all that could send more is closed.
        """
        seen, since = self.slots.clone(), time.monotonic()
        while not ended.wait(POLL):
            asked, now = self.asked, time.monotonic()
            if asked is None or not torch.equal(seen, self.slots):
                seen, since = self.slots.clone(), now
            fault = self._died() if asked is not None and now - asked > POLL else None
            if fault is None and now - since > self.limits.stall_seconds:
                blocked = [int(subject) for subject in self.slots[:, 1] if subject != NOTHING]
                fault = f"nothing was read for {self.limits.stall_seconds:g} seconds", blocked, True
            if fault is not None and not ended.is_set():
                self.fault = fault
                for process in self.processes:
                    process.kill()
                results = getattr(iterator, "_worker_result_queue", None)
                if results is not None:  # this process holds the pipe's sending end too
                    results._writer.close()
                return

    def _died(self) -> tuple[str, list[int], bool] | None:
        dead = {process.pid: process.exitcode for process in self.processes if process.exitcode is not None}
        if not dead:
            return None
        codes = {f"signal {-code}" if code < 0 else f"exit code {code}" for code in dead.values()}
        subjects = [int(subject) for pid, subject, _ in self.slots.tolist() if pid in dead and subject != NOTHING]
        return f"a worker process ended with {', '.join(sorted(codes))}", subjects, False


def supervised(
    dataset: Dataset[Any],
    batches: Callable[[int], Iterable[Any]],
    watch: Watch,
    lose: Callable[[int, int, str], str],
    collate: Callable[[list[Any]], T] | None = None,
    file_of: Callable[[int], Path] | None = None,
) -> Generator[T, None, None]:
    """What `dataset` gives for each of `batches`, in order, each exactly once, whatever happens to the workers.

    Args:
        dataset: reads under `watch.reading(subject)`.
        batches: the numbers to read from a position on: lists of them with `collate`, which `__getitems__` of the data
            set takes, else single ones.
        watch: over as many workers as there will be.
        lose: called with (subject, position, reason) when a subject has ended its worker twice. It must make the
            dataset give something else for it, and returns its name.
        collate: makes one result of those of a list; runs where they are read.
        file_of: the file of a subject, or what stands in it. Where workers stall over files that nobody can read, the
            storage is at fault: no subject is suspected.

    Raises:
        DataError: the workers fail again and again at one position.
        VQGANError: reading raised it, here or in another process.
    """
    position, restarts = 0, 0
    suspicions: Counter[int] = Counter()
    while True:
        loader: DataLoader[T | VQGANError] = DataLoader(
            _Answers(dataset, collate),
            sampler=_Order(batches(position)),
            batch_size=None,
            num_workers=watch.workers,
            worker_init_fn=_Start(watch),
        )
        iterator = watch.start(loader)
        try:
            while True:
                try:
                    result = watch.take(iterator)
                except StopIteration:
                    return
                if isinstance(result, VQGANError):
                    raise result
                yield result
                position, restarts = position + 1, 0
        except WorkerError as fault:
            restarts += 1
            if fault.stalled and file_of is not None and not _can_be_read([file_of(s) for s in fault.subjects]):
                fault = _no_storage(fault, str(file_of(fault.subjects[0])), restarts)
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
        finally:
            watch.stop(iterator)
            del iterator


def read_jobs(
    read: Callable[..., Any],
    jobs: Callable[[int], Iterable[tuple[int, ...] | None]],
    workers: int,
    limits: Limits,
    file_of: Callable[[int], Path],
    whole: bool = False,
) -> Generator[Any, None, None]:
    """What `read(*job)` gives for each job in order, None for a job that is None; the reason as text where it cannot.

    Args:
        read: can be pickled; raises `UnusableError`.
        jobs: from a position on; the first number of each is of the file that is read.
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


class _Answers(Dataset[Any]):
    """What a data set gives, or the error that ends the run: torch would send the text of a traceback in its place."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] | None) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, numbers: Any) -> Any:
        try:
            return self.dataset[numbers] if self.collate is None else self.collate(self.dataset.__getitems__(numbers))
        except VQGANError as error:
            return error


class _Reads(Dataset[Any]):
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
    return WorkerError(said, [])


def _can_be_read(files: Sequence[Path]) -> bool:
    """Whether some bytes of each can be had, or an error instead: asked by a process that may wait for ever."""
    asking = multiprocessing.Process(target=_look_at, args=(files,), daemon=True)
    asking.start()
    asking.join(ANSWER)
    answered = asking.exitcode is not None
    asking.kill()
    asking.join(POLL)
    return answered


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


class _Order(torch.utils.data.Sampler[Any]):
    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class _Start:
    """The first thing that a worker does."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __call__(self, worker: int) -> None:
        torch.set_num_threads(1)
        keep_freed_memory(False)  # what one large file took is not the next one's
        # A signal to the whole process group is the training process's business: it saves, and ends its workers.
        for name in STOP_SIGNALS:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        sys.excepthook = _tell
        if sys.platform == "linux":  # else a killed run's workers would hold its lock for seconds
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        self.watch.slots[worker, 0] = os.getpid()
        self.watch.allocated = _allocated()


def _tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print an error, unless it is that nobody waits for a result any more.

    A thread of `multiprocessing` hands over the memory of each result, on request. A run that stops in the middle of
    asking, and ends its workers then, is no error of theirs.
    """
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, traceback)


@contextlib.contextmanager
def _torch_asleep() -> Iterator[None]:
    """Without torch's handler of a worker's death; only the main thread can set it, and runs it."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    torch_signals._set_SIGCHLD_handler()  # once in a process; the first loader would do so, in the middle of its start
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `UnusableError` after so many seconds of computing; only the main thread of a process can be timed."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def end(_: int, __: FrameType | None) -> None:
        raise UnusableError(f"too slow: more than {seconds:g} seconds of computing")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _allocated() -> int:
    """Bytes that this process has asked for; 0 where that cannot be known."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def _memory_limit(megabytes: int | None, allocated: int) -> Iterator[None]:
    """Let this process allocate so much more than `allocated`, and nothing beyond."""
    if megabytes is None or sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = allocated + megabytes * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
