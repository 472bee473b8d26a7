"""Several processes that work together, as `torchrun` would start them, but for one function."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import torch


def together(count: int, function: Callable[..., Any], *arguments: Any, seconds: float = 240) -> list[Any]:
    """Call a function in `count` processes that have joined; returns what each returned, in order of rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results: Queue[tuple[int, Any, str | None]] = context.Queue()
    processes = [
        context.Process(target=_one, args=(rank, count, port, results, function, arguments), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    returned: dict[int, Any] = {}
    try:
        for _ in processes:
            rank, value, error = results.get(timeout=seconds)
            assert error is None, f"process {rank}: {error}"
            returned[rank] = pickle.loads(value)
    finally:
        for process in processes:
            process.join(10 if len(returned) == count else 0)
            process.kill()
    return [returned[rank] for rank in range(count)]


def _one(
    rank: int, count: int, port: int, results: Queue[Any], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    from vqgan.runtime.collectives import process_group

    try:
        with process_group():
            results.put((rank, pickle.dumps(function(*arguments)), None))  # else tensors are in memory that is shared
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
