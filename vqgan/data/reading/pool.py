"""Processes that do numbered jobs in turn; their results come in order."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from pickle import PicklingError
from typing import Any

from vqgan.data.reading.nursery import UNKNOWN, nursery
from vqgan.data.reading.shared import Shared, dump, load
from vqgan.data.reading.work import MESSAGE, Result, cannot_be_sent
from vqgan.errors import ConfigError

WINDOW = 2  # jobs that a worker has at a time
LENT = 2  # results of a worker that lie in its memory while somebody uses them; further ones are copied


class Pool:
    """Job n is done by worker n modulo their number.

    A result's arrays lie in memory that the worker writes to again once nobody refers to them: they may be kept, and
    changed, as any others. Of the memory there are WINDOW + LENT places a worker, each as large as its largest result.

    Args:
        begin: called in each process with its number.
        answer: what is done with a job, there. Both can be pickled, as can jobs and results.
        workers: how many processes.
        jobs: in order; drawn as they are handed out.
    """

    def __init__(
        self, begin: Callable[[int], object], answer: Callable[[Any], Any], workers: int, jobs: Iterable[Any]
    ) -> None:
        self.task, self.jobs, self.taken = (begin, answer), iter(jobs), 0
        self.workers = [_Worker(number) for number in range(workers)]

    def start(self) -> None:
        """Start the workers that are not there; the jobs that one had are done by the one in its place.

        Raises:
            ConfigError: what they are to do cannot be sent to them.
        """
        if not hasattr(os, "fork"):
            raise ConfigError("data.workers: this system has no fork. data.workers=0 reads in the training process.")
        task, shares = Shared(), list[Shared]()
        try:
            dump(self.task, task, shares)
        except (PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(cannot_be_sent(error)) from None
        for worker in self.workers:
            if worker.process is None:
                worker.start(task, shares)
        for _, worker in itertools.product(range(WINDOW - len(self.workers[0].owed)), self.workers):
            self._hand_out(worker)

    def end(self, number: int) -> int:
        """End a worker, if it is there; returns its exit code, or minus the number of the signal that ended it."""
        return self.workers[number].end()

    @property
    def turn(self) -> int:
        """The number of the worker that has the next result."""
        return self.taken % len(self.workers)

    def take(self, seconds: float) -> tuple[Exception | None, Any]:
        """What doing the next job raised, and its result.

        Raises:
            StopIteration: there is none.
            TimeoutError: it has not come within so many seconds.
            EOFError: it will not come: its worker has ended.
        """
        worker = self.workers[self.turn]
        error, result, said = worker.take(seconds)
        self.taken += 1
        self._hand_out(worker)
        for warning in said:
            warnings.warn_explicit(*warning)
        return error, result

    def close(self) -> None:
        """End all workers; they hold nothing that could be lost."""
        for worker in self.workers:
            worker.end()

    def _hand_out(self, worker: _Worker) -> None:
        for job in itertools.islice(self.jobs, 1):
            worker.hand_out(job)


class _Worker:
    def __init__(self, number: int) -> None:
        self.number = number
        self.owed: deque[Any] = deque()  # jobs
        self.process: int | None = None

    def start(self, task: Shared, shares: list[Shared]) -> None:
        self.slots = [_Slot() for _ in range(WINDOW + LENT)]
        self.nursery = nursery()
        self.pipe, theirs = socket.socketpair()
        self.process = 0  # there is something to end, even if a signal comes now
        with theirs:
            self.process = self.nursery.start(theirs)
        surroundings = Shared()
        dump((os.getcwd(), sys.path, dict(os.environ)), surroundings)  # noqa: PTH109
        files = [shared.file for shared in (surroundings, task, *(slot.memory for slot in self.slots), *shares)]
        with contextlib.suppress(OSError):  # it has ended already: seen when it is its turn
            socket.send_fds(self.pipe, [MESSAGE.pack(self.number, len(self.slots))], files)
        for job in self.owed:
            self._send(job)

    def hand_out(self, job: Any) -> None:
        self.owed.append(job)
        self._send(job)

    def take(self, seconds: float) -> Result:
        if not self.owed:
            raise StopIteration
        self.pipe.settimeout(seconds)
        try:
            message = self.pipe.recv(MESSAGE.size, socket.MSG_WAITALL)
        except ConnectionError:
            message = b""
        if not message:
            raise EOFError
        number, size = MESSAGE.unpack(message)
        slot = self.slots[number]
        used = sum(not slot.is_free for slot in self.slots) - len(self.owed)
        result: Result = load(slot.memory.bytes(size), lent=slot.lent if used < LENT else None)
        slot.is_owed = False
        self.owed.popleft()
        return result

    def end(self) -> int:
        if self.process is None:
            return UNKNOWN
        process, self.process = self.process, None
        code = self.nursery.end(process)
        self.pipe.close()
        return code

    def _send(self, job: Any) -> None:
        number, slot = next((number, slot) for number, slot in enumerate(self.slots) if slot.is_free)
        slot.is_owed, slot.lent = True, []
        with contextlib.suppress(OSError):
            self.pipe.sendall(MESSAGE.pack(number, dump(job, slot.memory)))


class _Slot:
    """Memory in which a job goes to a worker and its result comes back."""

    def __init__(self) -> None:
        self.memory, self.is_owed = Shared(), False
        self.lent: list[weakref.ref[Any]] = []  # what of the last result may still be used

    @property
    def is_free(self) -> bool:
        return not self.is_owed and all(part() is None for part in self.lent)
