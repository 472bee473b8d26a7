"""What a reading process does: one job after the other, until nobody is left to work for."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
import traceback
import warnings
from typing import Any

from vqgan.data.reading.shared import Shared, dump, load
from vqgan.errors import ConfigError, VQGANError

MESSAGE = struct.Struct("qq")  # so small that it is never sent in part; what it is about is in shared memory
MOST_FILES = 250  # that one message may hand over

Result = tuple[Exception | None, Any, list[tuple[Any, ...]]]  # or an error, and the warnings on the way


def work(pipe: socket.socket) -> None:
    """Do the jobs that come.

    Args:
        pipe: first come the files of shared memory: of where the process is (folder, `sys.path`, environment), of what
            it does, of its slots for jobs and results, and of what these things share; and how many slots those are.
            Then jobs, each by its slot and size; their results come back in the same slots.
    """
    first, files, _, _ = socket.recv_fds(pipe, MESSAGE.size, MOST_FILES)
    number, slots = MESSAGE.unpack(first)
    surroundings, task, *shares = [Shared(file=file) for file in files]
    folder, sys.path[:], environment = load(surroundings.bytes(1))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    said: list[tuple[Any, ...]] = []
    warnings.showwarning = lambda message, kind, file, line, *_: said.append((message, kind, file, line))
    problem: Exception | None = None
    try:
        begin, answer = load(task.private(os.fstat(task.file).st_size), shares[slots:], lent=[])
        begin(number)
    except Exception as error:
        problem = ConfigError(cannot_be_sent(error))
    while message := pipe.recv(MESSAGE.size, socket.MSG_WAITALL):
        slot, size = MESSAGE.unpack(message)
        memory = shares[slot]
        try:
            if problem is not None:
                raise problem
            size = dump((None, answer(load(memory.bytes(size))), said), memory)
        except Exception as error:
            size = dump((_portable(error), None, said), memory)
        said.clear()
        pipe.sendall(MESSAGE.pack(slot, size))


def cannot_be_sent(error: Exception) -> str:
    """What to say of a data set that no other process can be given."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return (
        f"data.workers: the data set cannot be sent to reading processes ({reason}). What it holds must be picklable, "
        "and its class must be in a module that they can import; data.workers=0 reads in the training process."
    )


def _portable(error: Exception) -> Exception:
    """The error as one that can be sent, with the place it is from if it is a bug."""
    if not isinstance(error, VQGANError):
        error.add_note("In a reading process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
