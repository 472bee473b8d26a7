"""What a run's numbers depend on beside its steps, recorded with each checkpoint and compared when the run goes on."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vqgan.config.keys import NEUTRAL, by_full_key, is_among, nested
from vqgan.config.moved import as_today
from vqgan.errors import ConfigError
from vqgan.files.writing import replace_text
from vqgan.runtime.device import Precision
from vqgan.runtime.process import this_process

PROCESSES = "processes"  # in the environment
PACKAGES = ("torch", "numpy", "av", "pillow")  # whose versions can change a bit of a result


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Software, hardware, data and config of a run.

    Args:
        environment: what the last digits depend on, by name.
        data: the fingerprint of the data set.
        config: the run's values, by their full key.
        allow_other_data: go on with another data set.
        allow_other_processes: go on with another number of processes.
    """

    environment: Mapping[str, str]
    data: str
    config: Mapping[str, Any]
    allow_other_data: bool
    allow_other_processes: bool

    def state_dict(self) -> dict[str, Any]:
        """The record."""
        return {"environment": dict(self.environment), "data": self.data, "config": dict(self.config)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with the record of a checkpoint.

        Raises:
            ConfigError: it is of a run on other data, or by another number of processes.
        """
        config = dict(by_full_key(as_today(nested(state["config"]))))
        then, now = state["environment"][PROCESSES], self.environment[PROCESSES]
        if then != now and not self.allow_other_processes:
            raise ConfigError(
                f"This run was trained by {then} of torchrun's processes, and this is {now}. Start as many as then, or "
                "go on with allow_other_processes=true: the batches stay the same, and each remaining clip is used "
                "once, but sums are added up in another order, so the last digits differ."
            )
        if state["data"] != self.data and not self.allow_other_data:
            raise ConfigError(
                f"The data are not those that this run was trained on: {self.data} now, {state['data']} then (by the "
                "paths below data.root, and the sizes, of all files that can be used). Bring them back, go on with "
                "these by allow_other_data=true, or start another run with the old weights: init_from=RUN."
            )
        for key in ("optimizer._target_", "discriminator_optimizer._target_"):
            before, after = config.get(key), self.config.get(key)
            if before != after:
                raise ConfigError(
                    f"{key} is {after}, and this run was trained with {before}, whose averages mean nothing to another "
                    "optimizer. Go on with that one, or start another run with the old weights: init_from=RUN."
                )
        changes = [*_changes(state["environment"], self.environment), *_changes(config, self.config)]
        if state["data"] != self.data:
            changes.append("another data set")
        if changes:
            warnings.warn(
                f"This run goes on, but no longer exactly as it would have without a stop: {'; '.join(changes)}.",
                stacklevel=2,
            )


def environment(device: torch.device, precision: Precision) -> dict[str, str]:
    """What the last digits of a run depend on, whose networks run in a precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "vqgan": version("vqgan"),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": f"{device.type}, {name}, {torch.backends.cpu.get_cpu_capability()}",
        # Version 0.1 did not choose: there `fp32` was TF32 on every GPU that has it.
        **({"float32 convolutions": "TF32" if precision == "tf32" else "IEEE"} if device.type == "cuda" else {}),
        "threads (OMP_NUM_THREADS)": str(torch.get_num_threads()),
        PROCESSES: str(this_process().count),
    }


def commit() -> str | None:
    """Of the checkout that this package is in, with `-dirty` where files have changed since; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return None


def write_environment(file: Path, environment: Mapping[str, str]) -> None:
    """Write down, for a person to read, what a run depends on, with the platform and how torch was built.

    Raises:
        StorageError: it cannot be written.
    """
    gpu = torch.version.cuda or torch.version.hip
    build = f"{torch.__version__}, {f'for CUDA or ROCm {gpu}' if gpu else 'for CPUs'}"
    replace_text(file, json.dumps({**environment, "torch build": build, "platform": platform.platform()}, indent=1))


def not_neutral(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that results depend on, by their full key."""
    return {key: value for key, value in by_full_key(values) if not is_among(key, NEUTRAL)}


def make_provenance(config: Mapping[str, Any], device: torch.device, data: str) -> Provenance:
    """The record of this process, with what the config allows to differ."""
    return Provenance(
        environment=environment(device, config["trainer"]["precision"]),
        data=data,
        config=not_neutral(config),
        allow_other_data=config["allow_other_data"],
        allow_other_processes=config["allow_other_processes"],
    )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    none = "not recorded"
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key, none)} and is {new.get(key, none)}" for key in keys]
