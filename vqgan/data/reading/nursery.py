"""Where reading processes come from: forks of a clean process, never of this one, whose threads may hold any lock.

A fork has the locks of its parent as they were, and none of the threads that would release them. So a process is
started that imports what reading needs, does nothing else, and forks on request, in milliseconds. Nobody's main module
is run again. It ends with the process that asked for it, and its forks with it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from typing import NoReturn

from vqgan.data.reading.work import work
from vqgan.runtime.signals import STOP_SIGNALS

PATIENCE = 5  # seconds for a process that was killed to be gone; one in a dead storage may never be
LOOK = 1  # seconds between looks at whether there is anybody left to fork for
UNKNOWN = 255  # the exit code where nobody can tell
NUMBER = struct.Struct("q")
PR_SET_PDEATHSIG = 1
# A signal to the whole process group is the training process's business: it saves, and ends its workers.
BEGIN = """
import signal, sys
for name in sys.argv[3].split():
    signal.signal(getattr(signal, name), signal.SIG_IGN)
sys.path[:] = sys.argv[4:]
from vqgan.data.reading import nursery
getattr(nursery, sys.argv[1])(int(sys.argv[2]))
"""


class Nursery:
    """The process that forks, and this one's connection to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                _command("serve", theirs.fileno()), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                env={"OPENBLAS_NUM_THREADS": "1", **os.environ},  # NumPy's starts threads as it is imported
            )  # fmt: skip
        atexit.register(self.close)

    def start(self, pipe: socket.socket) -> int:
        """The number of a new process, which does `work` at this end of a pipe; 0 if there is none."""
        return self._ask(0, pipe.fileno()) or 0

    def end(self, process: int) -> int:
        """Kill one, unless it has ended; returns its exit code, or minus the number of the signal that ended it."""
        code = self._ask(process) if process else None
        return UNKNOWN if code is None else code

    def close(self) -> None:
        """End it, and all that it has forked."""
        atexit.unregister(self.close)
        self.control.close()
        try:
            self.process.wait(LOOK)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """In a fork of this process: it is another's."""
        self.control.close()
        self.process.returncode = UNKNOWN  # so that nothing here kills it or waits for it

    def _ask(self, number: int, *files: int) -> int | None:
        with self.lock:
            try:
                socket.send_fds(self.control, [NUMBER.pack(number)], files)
                return int(NUMBER.unpack(self.control.recv(NUMBER.size, socket.MSG_WAITALL))[0])
            except (OSError, struct.error):  # it has ended
                return None
            except BaseException:  # a signal came, and the answer would be taken for that to the next question
                self.close()
                raise


_nursery: Nursery | None = None


def nursery() -> Nursery:
    """That of this process, begun anew if it has ended. The first call returns long before it is ready."""
    global _nursery
    if _nursery is None or _nursery.control.fileno() < 0 or _nursery.process.poll() is not None:
        if _nursery is not None:
            _nursery.close()
        _nursery = Nursery()
    return _nursery


def _forget() -> None:
    global _nursery
    if _nursery is not None:
        _nursery.forget()
        _nursery = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def serve(descriptor: int) -> NoReturn:
    """What the nursery does: answer each question by a number."""
    control, parent = socket.socket(fileno=descriptor), os.getppid()
    running: set[int] = set()
    gc.collect()
    gc.freeze()  # so that no fork writes to memory that all could share
    while os.getppid() == parent:  # a fork of the parent may hold the connection open
        if not select.select([control], [], [], LOOK)[0]:
            continue
        question, files, _, _ = socket.recv_fds(control, NUMBER.size, 1)
        if not question:
            break
        if files:
            answer = _start(control, files[0])
            running.add(answer)
            os.close(files[0])
        else:
            (answer,) = NUMBER.unpack(question)
            running.discard(answer)
            answer = _end(answer)
        control.sendall(NUMBER.pack(answer))
    for process in running - {0}:
        os.kill(process, signal.SIGKILL)
    os._exit(0)


def become(descriptor: int) -> NoReturn:
    """What a reading process does."""
    try:
        if sys.platform == "linux":  # should the nursery be killed
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(ConnectionError), socket.socket(fileno=descriptor) as pipe:
            work(pipe)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _command(does: str, descriptor: int) -> list[str]:
    path = [place or os.getcwd() for place in sys.path]  # noqa: PTH109
    return [sys.executable, "-c", BEGIN, does, str(descriptor), " ".join(STOP_SIGNALS), *path]


def _start(control: socket.socket, descriptor: int) -> int:
    try:
        if sys.platform != "linux":  # what macOS has imported cannot be forked
            os.set_inheritable(descriptor, True)
            return os.posix_spawn(sys.executable, _command("become", descriptor), os.environ)
        process = os.fork()
    except OSError:  # no memory for it
        return 0
    if process == 0:
        control.close()
        become(descriptor)
    return process


def _end(process: int) -> int:
    try:
        os.kill(process, signal.SIGKILL)  # which one that has ended does not notice: its number is kept for it
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
    except OSError:
        pass
    return UNKNOWN
