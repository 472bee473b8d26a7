"""Stopping when asked to: at once where nothing can be lost, else as soon as what is being done is whole."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# SIGUSR1 and SIGUSR2 are what schedulers of clusters send before they kill. Windows lacks them.
STOP_SIGNALS = [name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)]
MOMENT = 0.001  # seconds


class StopRequested(KeyboardInterrupt):  # no Exception, so that nobody on the way takes it for an error to handle
    """A signal came; its name is the message."""


class StopSignals:
    """While it is open, SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 are noted instead of ending the process.

    `at_once` marks parts that may be left at any point; a signal ends them, or the next of them, by `StopRequested`.
    They may be nested: what came to an inner one, perhaps too late for it to stop, the outer one knows as well.

    Args:
        agree: for one of several processes that must stop at the same point: says whether any of them is to stop. It
            is asked by `check`, which all call alike, and may answer one call later; nothing is left at once then.
    """

    def __init__(self, agree: Callable[[bool], bool] | None = None) -> None:
        self.agree = agree
        self.came: list[str] = []  # names of the signals
        self.goes_on = "The same command goes on."  # what to say of it where nothing else is known
        self._interruptible = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return bool(self.came)

    @property
    def name(self) -> str:
        """Of the last signal that came."""
        return self.came[-1] if self.came else ""

    @property
    def interrupts(self) -> bool:
        """Whether a signal would end at once what is being done."""
        return self._interruptible

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A part that a signal may end at any point: it waits, or computes what can be computed again.

        Raises:
            StopRequested: a signal came, here or before.
        """
        if self.agree is not None:
            yield
            return
        self._interruptible = True
        try:
            self.check()
            yield
        finally:
            self._interruptible = False

    def check(self) -> None:
        """Raise `StopRequested` if a signal came, and all processes know of it."""
        if self.requested if self.agree is None else self.agree(self.requested):
            raise StopRequested(self.name or "a signal to another process")

    def ignore(self) -> None:
        """From here on the process is on its way out, which no signal can hasten or disturb."""
        self._interruptible = False
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            for name in STOP_SIGNALS:
                number = signal.Signals[name]
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        outer = noting()
        if outer is not None:
            outer.came += self.came

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came.append(signal.Signals(number).name)
        # To name a line in a traceback, as PyAV does at the end of each file, Cython runs a frame that is of no module,
        # and what is raised there is lost. So the signal comes again, a moment later: from another thread, as here it
        # would come at once, and not by `threading`, whose locks may be taken just now.
        # The same holds of what tells weak dictionaries that a key is gone.
        name = "" if frame is None else frame.f_globals.get("__name__")
        if self._interruptible and name in (None, "weakref", "_weakrefset", "torch.utils.weak"):
            _thread.start_new_thread(_again, (signal.Signals(number),))
        elif self._interruptible:
            self._interruptible = False  # a second signal must not disturb the way out
            raise StopRequested(self.name)


def noting() -> StopSignals | None:
    """What notes this process's signals now, if anything does: the innermost one that is open."""
    found = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return found if isinstance(found, StopSignals) else None


def _again(number: signal.Signals) -> None:
    time.sleep(MOMENT)
    _thread.interrupt_main(number)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A part that no signal may cut in two, since it is short and half of it is worth nothing: one that comes waits."""
    stop = StopSignals()
    try:
        with stop:
            yield
    finally:
        if stop.requested:
            signal.raise_signal(signal.Signals[stop.name])
