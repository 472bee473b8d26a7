"""What the processes of one run tell each other. Each function is called by all of them, and alone changes nothing."""

from __future__ import annotations

import datetime
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int, Shaped
from torch import Tensor

from vqgan.errors import ConfigError, LostProcessError
from vqgan.runtime.process import Process, this_process

T = TypeVar("T")
# How long one may keep the others waiting, in a step and otherwise: the first may look into a large folder for hours.
# Whoever dies is noticed at once.
STEP, OTHERWISE = datetime.timedelta(minutes=30), datetime.timedelta(days=1)
apart = False  # whether a step is computed `without_the_others`
cpu_group: dist.ProcessGroup | None = None  # the group for what is no part of a step; None is the one for steps


@contextmanager
def process_group() -> Iterator[Process]:
    """Join the other processes that `torchrun` has started, if there are any, until the end of the block.

    Raises:
        LostProcessError: one of them has ended before.
    """
    process = this_process()
    if process.count == 1 or dist.is_initialized():
        yield process
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(process.local_rank % torch.cuda.device_count())
    global cpu_group, mean
    mean = torch.compiler.disable(mean)  # not where it is defined: that imports the compiler, for 0.9 s of each command
    with raising_lost_process():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=STEP)
        cpu_group = dist.new_group(backend="gloo", timeout=OTHERWISE)
        yield process
    # Not after an error: it could wait for those that are not there any more, and the process ends anyway.
    cpu_group = None
    dist.destroy_process_group()


@contextmanager
def without_the_others() -> Iterator[None]:
    """A block in which nothing is told or asked within a step: it is computed as if this process were alone.

    For steps on tensors without content, which no process can send.
    """
    global apart
    before, apart = apart, True
    try:
        yield
    finally:
        apart = before


def _are_there_others() -> bool:
    return dist.is_initialized() and not apart


@contextmanager
def raising_lost_process() -> Iterator[None]:
    """A block in which another process may die.

    Raises:
        LostProcessError: one did.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise LostProcessError(
            "Another process of this run has ended or cannot be reached; its own message says why. The newest "
            f"checkpoint is good, and the same command goes on from it. What was noticed here: {_in_short(error)}"
        ) from error


def _in_short(error: RuntimeError) -> str:
    """The first line of an error; of NCCL's, which is where in its code, what it says of the cause as well."""
    first, _, rest = str(error).strip().partition("\n")
    cause = rest.partition("Last error:")[2].strip().partition("\n")[0]
    return f"{first} ({cause})" if cause else first


def refuse_shared_gpu(device: torch.device) -> None:
    """Check that no two processes have the same GPU, between which NCCL cannot carry anything.

    Raises:
        ConfigError: two have.
    """
    # Not by its number: a launcher may show each process one GPU alone, which is then number 0 for all of them.
    own = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
    first: dict[str, int] = {}
    for rank, (host, gpu) in enumerate(gather((socket.gethostname(), own))):
        if gpu is not None and first.setdefault(gpu, rank) != rank:
            raise ConfigError(
                f"trainer.device: processes {first[gpu]} and {rank}, on {host}, have the same GPU. Start one process "
                "for each GPU (torchrun --nproc-per-node=N), and leave trainer.device=auto, which deals them out."
            )


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors; no gradient goes through it."""
    if not _are_there_others():
        return tensor
    summed = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of all processes' tensors, with gradients: as if the batch were one."""
    return mean(tensor) if _are_there_others() else tensor


def broadcast_tensor(tensor: Tensor) -> Tensor:
    """The first process's tensor, of the same shape and type in all."""
    if _are_there_others():
        dist.broadcast(tensor, 0)
    return tensor


def rows_over_processes(rows: Shaped[Tensor, "n features"], indices: Int[Tensor, "m"]) -> Shaped[Tensor, "m features"]:
    """Rows of all processes' tensors of the same shape, one below the other in order of rank; same indices in all."""
    if not _are_there_others():
        return rows[indices]
    within = indices - dist.get_rank() * len(rows)
    here = (within >= 0) & (within < len(rows))
    return sum_over_processes(torch.where(here[:, None], rows[within.clamp(0, len(rows) - 1)], 0))


def reduce_in_background(tensor: Tensor) -> Callable[[], object]:
    """Replace a tensor by the sum of all processes' in its place; returns what waits for that."""
    return dist.all_reduce(tensor, async_op=True).wait if _are_there_others() else lambda: None


def count_of_processes() -> int:
    """How many there are."""
    return dist.get_world_size() if _are_there_others() else 1


def share_of(items: Sequence[T]) -> list[tuple[int, T]]:
    """Those of some items that fall to this process, each with its number."""
    if not dist.is_initialized():
        return list(enumerate(items))
    return list(enumerate(items))[dist.get_rank() :: dist.get_world_size()]


def gather(value: T) -> list[T]:
    """Each process's value, in order of rank: tensors on the CPU, numbers, text, lists and dicts of them."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=cpu_group)
    return values


def broadcast(value: T) -> T:
    """The value of the first process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, group=cpu_group)
    return values[0]


class Agreement:
    """Whether a flag is set in any process, told one call later: the message travels while a step is computed."""

    def __init__(self) -> None:
        self.sent: tuple[Tensor, Any] | None = None  # how many set it, and the message

    def __call__(self, flag: bool) -> bool:
        """Send this process's flag; whether any process had set its own at the call before."""
        before, flags = self.sent, torch.tensor(int(flag))
        self.sent = flags, dist.all_reduce(flags, async_op=True)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])


@contextmanager
def first_alone() -> Iterator[None]:
    """A block that the first process is through with before the others begin: they find what it leaves in a cache."""
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    if not is_first:
        broadcast(None)
    yield
    if is_first:
        broadcast(None)


class _Mean(torch.autograd.Function):
    """Forward the mean; backward the mean as well, since each process's loss depends on each one's tensor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        return sum_over_processes(tensor) / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:  # noqa: ARG004
        return sum_over_processes(outer[0]) / dist.get_world_size()


mean: Callable[[Tensor], Tensor] = _Mean.apply  # which `process_group` hides from the compiler: it sends and waits
