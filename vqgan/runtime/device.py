"""The hardware that networks run on."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.errors import ConfigError, StorageError
from vqgan.runtime.process import this_process

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 2**17, 2**16


def keep_freed_memory(wanted: bool) -> None:
    """Whether memory that is freed stays with the process, where that can be chosen (glibc).

    Else each large tensor is mapped anew and filled with zeros by the system, a tenth of a step in float32.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0 if wanted else DEFAULT_MMAP_MAX)
        mallopt(M_TRIM_THRESHOLD, -1 if wanted else DEFAULT_TRIM_THRESHOLD)


# Of networks: IEEE float32; bfloat16 where autocast takes it; float32 whose convolutions on NVIDIA GPUs round what they
# multiply to 10 bits (TF32), elsewhere the same as `fp32`.
Precision = Literal["fp32", "bf16", "tf32"]
# What to do about it before the work begins, of a finished tokenizer and of a run.
ANOTHER_DEVICE = "Choose a device that has it: device=cpu, perhaps."
SMALLER_RUN = (
    "Try a smaller model.quantizer.codebook_size, backbone.channels, discriminator.channels or data.validation_clips, "
    "of a prior prior.dim, "
    "or a trainer.device that has it."
)
# What errors say that are of no class of their own.
OUT_OF_MEMORY = (
    "out of memory",  # CUDA outside torch's allocator, NCCL, MPS
    "Invalid buffer size",  # MPS, for a tensor larger than it can hold at all
    "_ALLOC_FAILED",  # cuBLAS and its sisters
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",  # oneDNN
    "bad_alloc",  # C++
    "Storage size calculation overflowed",  # more bytes than numbers count
)


def find_device(name: str, key: str = "trainer.device") -> torch.device:
    """The device of that name; `auto` takes cuda, mps or cpu, the first there is. `key` is what the user calls it.

    Several processes on one machine take one GPU each.

    Raises:
        ConfigError: there is no such device here.
    """
    available = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    process = this_process()
    if name in ("auto", "cuda") and available[0] == "cuda" and process.count > 1:
        return torch.device("cuda", process.local_rank % torch.cuda.device_count())
    if name == "auto":
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in available or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"{key}={name} is not available here; choose one of auto, {', '.join(available)}.")
    return device


def tune(device: torch.device, precision: Precision) -> None:
    """Settings of the whole process, for steps that all have the same shapes."""
    torch.backends.cudnn.benchmark = True  # the fastest algorithm is looked for, once
    _use_tf32(convolutions=precision == "tf32")
    if device.type == "cpu":
        keep_freed_memory(True)


@contextmanager
def running_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """A block in which networks run forward in a precision; afterwards the process has its own settings again."""
    flags = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = [flag.fp32_precision == "tf32" for flag in flags]
    _use_tf32(convolutions=precision == "tf32")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        _use_tf32(*before)


def _use_tf32(convolutions: bool, products: bool = False) -> None:
    """Whether CUDA may round float32 to TF32; torch's own default is that convolutions may.

    Products of matrices may not, whatever the environment says: the nearest code is found by one.
    """
    with warnings.catch_warnings():
        # Torch 2.10 prefers flags of its newer interface. But they leave the older ones as they were, and where the two
        # differ its compiler refuses to work. These set both.
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision("high" if products else "highest")


def prepare(network: nn.Module, device: torch.device, channels_last: bool) -> None:
    """Move a network to its device and memory format, in training mode."""
    innermost = {4: torch.channels_last, 5: torch.channels_last_3d} if channels_last else {}
    network.to(device).train()
    for tensor in (*network.parameters(), *network.buffers()):  # torch's own way knows one format for a whole network
        tensor.data = tensor.data.contiguous(memory_format=innermost.get(tensor.ndim, torch.contiguous_format))


def keep_layout(optimizer: Optimizer) -> None:
    """Let state that is loaded into an optimizer have its parameters' memory format, which fused ones rely on."""

    def lay_out(optimizer: Optimizer) -> None:
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    optimizer.register_load_state_dict_post_hook(lay_out)


def keep_values(optimizer: Optimizer) -> None:
    """Let an optimizer keep the values it was built with when state is loaded into it; torch would load those too."""

    def as_built(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"param_groups": [group | optimizer.defaults for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(as_built)


def on_device(batch: Tensor, device: torch.device) -> Tensor:
    """A batch on its device; the host goes on while it travels, where that is safe.

    Not to Apple's GPUs, which may read it after its memory has been given to something else (pytorch #189690).
    """
    return batch.to(device, non_blocking=device.type == "cuda")


def require_compiler() -> None:
    """Check that networks can be compiled here.

    Raises:
        ConfigError: no C++ compiler is found.
    """
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl")):
        raise ConfigError("trainer.compile=true needs a C++ compiler, and none is found; install one or leave it out.")


def is_busy(device: torch.device) -> bool:
    """Whether a device still has work from before; a CPU has none, since it does each thing when it is told."""
    return device.type == "cuda" and not torch.cuda.current_stream(device).query()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or in the process."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in OUT_OF_MEMORY
    )


def is_compiling_failed(error: BaseException) -> bool:
    """Whether an error is of compiling a network."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def out_of_memory(device: torch.device, clip: Sequence[int], batch_size: int, helps: str) -> StorageError:
    """What to say then.

    Args:
        device: where the networks are.
        clip: shape (…, time, height, width, rgb).
        batch_size: clips per micro-batch.
        helps: what helps most, a sentence.
    """
    time, height, width = clip[-4:-1]
    return StorageError(
        f"Out of memory on {device}: the peak was {peak_of(device) / 2**30:.1f} GiB, with {batch_size} clips of {time} "
        f"frames of {width}×{height} at once. The newest checkpoint is good. {helps} Or try a smaller data.batch_size "
        "with more trainer.accumulate (the same clips in a step, of which batch norms and the adaptive weight see one "
        "part at a time), fewer data.clip_frames, a smaller data.resolution, or trainer.precision=bf16."
    )


def out_of_memory_at_work(device: torch.device, shape: Sequence[int], before: int) -> StorageError:
    """What to say where a finished tokenizer works on a batch of that shape, after so many bytes were in use."""
    peak = peak_of(device)
    saved = 0.75 * max(0, peak - before) / 2**30
    return StorageError(
        f"Out of memory on {device}: the peak was {peak / 2**30:.1f} GiB, with a batch of {'×'.join(map(str, shape))}. "
        f"What was finished is saved. What helps most: half the resolution, which would save about {saved:.2g} GiB of "
        "it. Or try a smaller batch_frames, or precision=bf16."
    )


@contextmanager
def memory_at_work(device: torch.device, shape: Sequence[int]) -> Iterator[None]:
    """A block in which a finished tokenizer works on a batch of that shape.

    Raises:
        StorageError: memory ran out.
    """
    before = in_use(device)
    with _said_of_memory(lambda _: out_of_memory_at_work(device, shape, before)):
        yield


@contextmanager
def memory_to_begin(advice: str) -> Iterator[None]:
    """A block in which what a command works with is built and brought to its device; `advice` says what would be less.

    Raises:
        StorageError: memory ran out.
    """

    def say(error: BaseException) -> StorageError:
        # The allocators of CPUs, CUDA and MPS all tell how much they were asked for, in their own units.
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
        needed = "" if asked is None else f": one tensor alone needs {_readable(asked[1])} more"
        return StorageError(f"Out of memory before the work begins{needed}. {advice}")

    with _said_of_memory(say):
        yield


@contextmanager
def _said_of_memory(say: Callable[[BaseException], StorageError]) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise say(error) from error


def _readable(amount: str) -> str:
    """Bytes as GiB; what has a unit already stays as it is."""
    return f"{int(amount.split()[0]) / 2**30:,.1f} GiB" if amount.endswith(" bytes") else amount


def peak_of(device: torch.device) -> int:
    """The most bytes that were in use: on a GPU by tensors, else by the process; 0 where that is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_use(device: torch.device) -> int:
    """Bytes that are taken now: on a GPU by tensors, on a CPU by all of the process; 0 where that is not known."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
