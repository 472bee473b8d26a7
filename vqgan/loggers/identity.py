"""How a run is called where many runs are shown: its name, its group and its tags, from what was typed for it."""

from __future__ import annotations

import os
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from vqgan.run_folder import typed_for

# What tells nothing of the results: where, how long, for whom. A section stands for all its keys.
UNNAMED = (
    "run_dir", "resume", "allow_other_data", "objective", "sweep", "hydra", "logger", "data.root", "data.val_root",
    "data.index", "data.workers", "data.limits", "trainer.device", "trainer.log_every", "trainer.evaluate_every",
    "trainer.checkpoint_every", "trainer.pictures", "trainer.usage_steps", "trainer.keep",
)  # fmt: skip
TAGGED = ("experiment", "sweep", "model", "backbone", "data")  # groups whose choice is a tag
SWEEP_FILES = ("multirun.yaml", "sweep.yaml")  # beside the jobs of a multirun
LONGEST_NAME, LONGEST_TAG = 100, 64  # characters; W&B takes 128, and 64


def name_of(folder: Path) -> str:
    """The overrides that a run was made with, as `model=emavq,optimizer.lr=0.001`; `name/time` if there were none.

    A long one has the last word of each key alone, and is cut.
    """
    pairs = [override.lstrip("+").partition("=")[::2] for override in typed_for(folder)]
    pairs = [(key, value) for key, value in pairs if _is_telling(key, value)]
    if sum(len(key) + len(value) + 2 for key, value in pairs) > LONGEST_NAME:
        pairs = [(key.rpartition(".")[2], value) for key, value in pairs]
    parts = [value if key == "name" else f"{key}={value}" if value else key for key, value in pairs]
    return _cut(",".join(parts), LONGEST_NAME) or "/".join(folder.absolute().parts[-2:])


def sweep_of(folder: Path) -> str | None:
    """The folder of the multirun that a run is a job of, as `name/time`; None for a run on its own."""
    above = folder.absolute().parent
    return "/".join(above.parts[-2:]) if any((above / name).is_file() for name in SWEEP_FILES) else None


def choices() -> dict[str, str]:
    """Which choice of each of the `TAGGED` groups was composed, as Hydra knows; nothing where it did not compose."""
    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {group: str(chosen[group]) for group in TAGGED if chosen.get(group) is not None}


def tags_of(choices: dict[str, str]) -> list[str]:
    """The choices as tags: `model=emavq`."""
    return [_cut(f"{group}={choice}", LONGEST_TAG) for group, choice in choices.items()]


def _is_telling(key: str, value: str) -> bool:
    hidden = any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in UNNAMED)
    return not hidden and os.sep not in value


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
