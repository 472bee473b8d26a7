"""What a machine has of what training needs. Nothing is changed but for a temporary folder, which goes again."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vqgan.doctor.finding import Finding, found
from vqgan.errors import VQGANError

GIBIBYTE = 2**30
LITTLE_DISK, LITTLE_MEMORY = 5 * GIBIBYTE, 2 * GIBIBYTE
CGROUP = Path("/sys/fs/cgroup/memory.max")  # of a container: less than the machine has
MEMORY = Path("/proc/meminfo")
TRACKERS = {"wandb": None, "tensorboard": "tensorboard", "mlflow": "mlflow"}  # package: the extra that brings it


def machine(folder: Path) -> list[Finding]:
    """What there is, a line each.

    Args:
        folder: in which runs would be kept.
    """
    looks: dict[str, Callable[[], Finding]] = {
        "software": _software,
        "device": _device,
        "bf16": _bf16,
        "compile": _compile,
        "cores": _cores,
        "memory": _memory,
        "shared memory": _shared_memory,
        "disk": partial(_disk, folder),
        **{package: partial(_tracker, package, extra) for package, extra in TRACKERS.items()},
    }
    return found(looks.items())


def _software() -> Finding:
    import torch

    versions = {"vqgan": version("vqgan"), "python": platform.python_version(), "torch": torch.__version__}
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    return Finding("software", f"{said}, {platform.platform(terse=True)}", versions)


def _device() -> Finding:
    import torch

    from vqgan.runtime.device import find_device

    device = find_device("auto")
    if device.type == "cuda":
        gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        said = ", ".join(f"{gpu.name} ({gpu.total_memory / GIBIBYTE:.0f} GiB)" for gpu in gpus)
        start = f"torchrun --nproc-per-node={len(gpus)} … trains one run on all GPUs: docs/clusters.md."
        values = {"type": "cuda", "gpus": [gpu.name for gpu in gpus]}
        return Finding("device", f"cuda: {said}", values, start if len(gpus) > 1 else None)
    if device.type == "mps":
        change = "Nobody has trained on an Apple GPU yet: compare a short run with trainer.device=cpu."
        return Finding("device", "mps: an Apple GPU", {"type": "mps"}, change)
    vectors = torch.backends.cpu.get_cpu_capability()
    built = f"torch is built for CUDA {torch.version.cuda}, and sees no GPU" if torch.version.cuda else "no GPU"
    change = "Without a GPU stay with minutes: the default, experiment=small or small_f8, at 64 pixels."
    return Finding("device", f"cpu with {vectors}; {built}", {"type": "cpu", "vectors": vectors}, change)


def _bf16() -> Finding:
    import torch

    from vqgan.runtime.device import find_device
    from vqgan.runtime.processor import multiplies_bf16

    device = find_device("auto")
    gpu_has = device.type != "cuda" or torch.cuda.get_device_capability() >= (8, 0)
    has = multiplies_bf16(device) and gpu_has
    said = "yes" if has else "no: it would be emulated, many times slower than float32"
    return Finding("bf16", said, {"has": has}, "trainer.precision=bf16 is worth a try." if has else None)


def _compile() -> Finding:
    from vqgan.runtime.device import require_compiler

    try:
        require_compiler()
    except VQGANError:
        return Finding("compile", "no: no C++ compiler is found, and trainer.compile=true needs one", {"has": False})
    return Finding("compile", "a C++ compiler is there: trainer.compile=true can be tried", {"has": True})


def _cores() -> Finding:
    import torch

    from vqgan.runtime.processor import cores

    count, threads, load = cores(), torch.get_num_threads(), os.getloadavg()[0]
    change = None
    if load > count and threads > 1:
        change = (
            f"Others are at work here (load {load:.1f} on {count} cores): OMP_NUM_THREADS=1 may train faster than "
            f"{threads} threads. Keep it for the whole run: another number gives other last digits."
        )
    said = f"{count}, of which torch takes {threads}; load {load:.1f}"
    return Finding("cores", said, {"cores": count, "threads": threads, "load": load}, change)


def _memory() -> Finding:
    lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines()) if MEMORY.exists() else {}
    if "MemAvailable" in lines:
        free = int(lines["MemAvailable"].split()[0]) * 1024
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.exists() else "max"
    if limit.isdecimal():
        free = min(free, int(limit))
    little = "Little memory: a smaller data.batch_size with more trainer.accumulate." if free < LITTLE_MEMORY else None
    return Finding("memory", f"{_size(free)} free", {"free": free}, little)


def _shared_memory() -> Finding:
    """In which reading processes hand over what they read; not in /dev/shm, of which a container has little."""
    from vqgan.data.reading.shared import Shared

    try:
        Shared(1).bytes()
    except OSError as error:
        change = "Reading processes hand batches over in shared memory; data.workers=0 reads in the training process."
        return Finding("shared memory", f"cannot be used: {error.strerror or error}", {"usable": False}, change)
    return Finding("shared memory", "can be used", {"usable": True}, None)


def _disk(folder: Path) -> Finding:
    """Whether checkpoints can be kept, which need folders that can be flushed, and symbolic links."""
    there = next((p for p in (folder, *folder.absolute().parents) if p.is_dir()), Path.cwd())
    values = {"folder": str(there), "usable": False}
    elsewhere = "Name another place for runs: run_dir=DIR."
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".vqgan-doctor-") as name:
            Path(name, "link").symlink_to("target")
            handle = os.open(name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding("disk", f"runs cannot be kept in {there}: {error.strerror or error}", values, elsewhere)
    little = f"Little room for checkpoints in {there}. {elsewhere}" if free < LITTLE_DISK else None
    return Finding("disk", f"{_size(free)} free in {there}", {**values, "usable": True, "free": free}, little)


def _tracker(package: str, extra: str | None) -> Finding:
    choice = f"logger={package}"
    try:
        number = version(package)
        importlib.import_module(package)
    except (PackageNotFoundError, ImportError) as error:
        missing = isinstance(error, PackageNotFoundError | ModuleNotFoundError)
        how = "not installed" if missing else f"cannot be imported: {' '.join(str(error).split())}"
        change = None
        if extra is None:
            change = f"{choice} is the default, and {package} is not usable: install it, or type logger=none."
        by = f" (an extra: {extra})" if extra and missing else ""
        return Finding(package, f"{how}{by}", {"usable": False}, change)
    said, values = number, {"usable": True, "version": number}
    if package == "wandb":
        from vqgan.loggers.wandb.process import chosen_mode

        values["mode"] = mode = chosen_mode()
        said += f"; {mode}, as you are {'' if mode == 'online' else 'not '}logged in, or as WANDB_MODE says"
        if mode == "online":
            change = "W&B uploads frames of your videos with logger=wandb, the default: logger.private=true uploads "
            return Finding(package, said, values, f"{change}none, logger=none nothing.")
    return Finding(package, said, values)


def _size(count: int) -> str:
    return f"{count / GIBIBYTE:,.1f} GiB" if count >= GIBIBYTE else f"{count / 2**20:,.0f} MiB"
