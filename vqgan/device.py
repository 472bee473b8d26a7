"""The hardware that networks run on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.autoencoder import Autoencoder
from vqgan.distributed import this_process
from vqgan.errors import ConfigError, StorageError
from vqgan.memory import keep_freed_memory


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


def tune(device: torch.device) -> None:
    """Settings of the whole process, for steps that all have the same shapes."""
    torch.backends.cudnn.benchmark = True  # the fastest algorithm is looked for, once
    if device.type == "cpu":
        keep_freed_memory(True)


def prepare(network: nn.Module, device: torch.device, channels_last: bool) -> None:
    """Move a network to its device and memory format, in training mode."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(device).to(memory_format=layout).train()  # type: ignore[call-overload]


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


def compile_networks(autoencoder: Autoencoder, others: Iterable[nn.Module | None]) -> None:
    """Compile networks in place; names of parameters stay the same.

    The decoder's last layer stays outside: the adaptive weight needs its gradient by itself.

    Raises:
        ConfigError: no C++ compiler is found.
    """
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++", "cl")):
        raise ConfigError("trainer.compile=true needs a C++ compiler, and none is found; install one or leave it out.")
    autoencoder.encoder.compile()
    autoencoder.decoder.features = torch.compile(autoencoder.decoder.features)  # type: ignore[method-assign]
    for network in others:
        if network is not None:
            network.compile()


def is_busy(device: torch.device) -> bool:
    """Whether a device still has work from before; a CPU has none, since it does each thing when it is told."""
    return device.type == "cuda" and not torch.cuda.current_stream(device).query()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or in the process."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    said = ("can't allocate memory", "not enough memory", "could not create a primitive")  # the last is oneDNN's
    return known or any(words in str(error) for words in said)


def is_compiling_failed(error: BaseException) -> bool:
    """Whether an error is of compiling a network."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def out_of_memory(device: torch.device, clip: Sequence[int], batch_size: int) -> StorageError:
    """What to say then.

    Args:
        device: where the networks are.
        clip: shape (…, time, height, width, rgb).
        batch_size: clips per micro-batch.
    """
    time, height, width = clip[-4:-1]
    return StorageError(
        f"Out of memory on {device}: the peak was {_peak(device) / 2**30:.1f} GiB, with {batch_size} clips of {time} "
        f"frames of {width}×{height} at once. The newest checkpoint is good. Try a smaller data.batch_size with more "
        "trainer.accumulate (the same clips in a step, of which batch norms and the adaptive weight see one part at a "
        "time), fewer data.clip_frames, a smaller data.resolution, or trainer.precision=bf16."
    )


def out_of_memory_at_work(device: torch.device, shape: Sequence[int]) -> StorageError:
    """What to say where a finished tokenizer works on a batch of that shape."""
    return StorageError(
        f"Out of memory on {device}: the peak was {_peak(device) / 2**30:.1f} GiB, with a batch of "
        f"{'×'.join(map(str, shape))}. What was finished is saved. Try a smaller batch_frames, a smaller "
        "resolution, or precision=bf16."
    )


def _peak(device: torch.device) -> int:
    """The most bytes that were in use."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
