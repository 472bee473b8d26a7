"""What this machine's processor is good at, where a choice that is right on one kind costs much on another.

The answers are of the hardware alone, so a run has the same bits on every machine of the same kind.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

# Of weights and activations: with the channels innermost, without, or as the device is fastest.
ChannelsLast = bool | Literal["auto"]
# As torch names what multiplies bfloat16: x86 by vectors and by tiles, ARM by either length of vectors.
BF16_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """A block that may start threads, and leaves them and this one without the real-time priority that it gives them.

    SVT-AV1 takes that where it may, which is as root; whatever is started later inherits it, and what waits in a loop
    there keeps all else from a core.
    """
    threads = Path("/proc/self/task")
    if not threads.is_dir() or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    try:
        yield
    finally:
        for thread in threads.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                if os.sched_getscheduler(int(thread.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                    os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def lays_channels_last(wanted: ChannelsLast, device: torch.device) -> bool:
    """Whether channels are innermost: as wanted, and for `auto` where convolutions are faster so.

    Those of GPUs are, and those of CPUs with AVX-512; on other CPUs the conversions cost more than they bring.
    """
    if wanted != "auto":
        return wanted
    return device.type != "cpu" or _vectors().startswith("AVX512")


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by itself; a CPU that does not is many times slower than in float32."""
    if device.type != "cpu":
        return True
    ask = getattr(torch.cpu, "get_capabilities", None)
    if ask is None:  # an older torch, which knows of x86 only
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    has = ask()
    return any(has.get(name, False) for name in BF16_PRODUCTS)


def choices(wanted: ChannelsLast, precision: str, device: torch.device) -> str:
    """The memory format and the precision, and why: one line."""
    layout = "channels last" if lays_channels_last(wanted, device) else "channels first"
    here = f"this CPU has {_vectors()}" if device.type == "cpu" else "it is a GPU"
    slow = precision == "bf16" and not multiplies_bf16(device)
    said = f"{layout}, since {here}" if wanted == "auto" else f"{layout}, as asked"
    return f"{said}; {precision}" + (", as insisted on: this CPU emulates it" if slow else "")


def _vectors() -> str:
    """What torch's own code uses of the CPU, such as `AVX2` or `AVX512`; ATEN_CPU_CAPABILITY can make it less."""
    return torch.backends.cpu.get_cpu_capability()
