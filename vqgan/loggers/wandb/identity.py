"""How a run is called where many runs are shown: its name, its group and its tags, from what was typed for it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from vqgan.errors import ConfigError
from vqgan.runs.saved import typed_for
from vqgan.runs.sweep import SWEEP, swept_overrides

# What tells nothing of the results: where, how long, for whom. A section stands for all its keys.
UNNAMED = (
    "run_dir", "resume", "allow_other_data", "allow_other_processes", "objective", "sweep", "hydra", "logger",
    "data.root", "data.val_root", "data.index", "data.workers", "data.limits", "trainer.device", "trainer.log_every",
    "trainer.evaluate_every", "trainer.checkpoint_every", "trainer.pictures", "trainer.usage_steps", "trainer.keep",
)  # fmt: skip
TAGGED = ("experiment", "sweep", "model", "backbone", "data")  # groups whose choice is a tag
LONGEST_NAME, LONGEST_TAG = 100, 64  # characters; W&B takes 128, and 64


def name_of(folder: Path) -> str:
    """The overrides that a run was made with, as `model=emavq,optimizer.lr=0.001`; `name/time` if there were none.

    Of a sweep's job, those that its jobs have not in common.
    A long one has the last word of each key alone, and loses its beginning: what a sweep varies comes last.
    """
    typed = typed_for(folder)
    with contextlib.suppress(ConfigError):  # of a run on its own, or beside a damaged record
        typed = swept_overrides(folder.parent, typed)
    pairs = [override.lstrip("+").partition("=")[::2] for override in typed]
    pairs = [(key, value) for key, value in pairs if _is_telling(key, value)]
    if sum(len(key) + len(value) + 2 for key, value in pairs) > LONGEST_NAME:
        pairs = [(key.rpartition(".")[2], value) for key, value in pairs]
    parts = [value if key == "name" else f"{key}={value}" if value else key for key, value in pairs]
    name = ",".join(parts) or "/".join(folder.absolute().parts[-2:])
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]


def sweep_of(folder: Path) -> str | None:
    """The folder of the sweep that a run is a job of, as `name/time`; None for a run on its own."""
    above = folder.absolute().parent
    return "/".join(above.parts[-2:]) if (above / SWEEP).is_file() else None


def choices() -> dict[str, str]:
    """Which choice of each of the `TAGGED` groups was composed, as Hydra knows; nothing where it did not compose."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {group: str(chosen[group]) for group in TAGGED if chosen.get(group) is not None}


def tags_of(choices: dict[str, str]) -> list[str]:
    """The choices as tags: `model=emavq`."""
    return [f"{group}={choice}"[:LONGEST_TAG] for group, choice in choices.items()]


def _is_telling(key: str, value: str) -> bool:
    hidden = any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in UNNAMED)
    return not hidden and os.sep not in value
