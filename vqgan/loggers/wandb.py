"""Weights & Biases."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from vqgan.loggers.logger import Logger


class WeightsAndBiases(Logger):
    """A W&B run per training run, its files below the run folder's `wandb/`; a resumed run continues it.

    Args:
        folder: the run folder.
        config: the run's values, shown and filterable in W&B.
        project: of W&B.
        entity: user or team; null for the default one.
        group: of runs that belong together; null for none.
        tags: of the run.
        mode: `auto` is online when logged in (`WANDB_API_KEY`, or `wandb login`) and offline otherwise; `online` or
            `offline` insist. Offline runs are uploaded later with `wandb sync`.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        project: str,
        entity: str | None,
        group: str | None,
        tags: list[str],
        mode: Literal["auto", "online", "offline"],
    ) -> None:
        self.folder, self.config = folder, config
        self.project, self.entity, self.group, self.tags = project, entity, group, tags
        self.mode = mode
        self.run: Any = None
        self.id: str | None = None

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Log one step; pictures as images, clips as videos."""
        import wandb

        run = self.run or self._start()
        media = {
            name: wandb.Video(str(file), format="mp4") if file.suffix == ".mp4" else wandb.Image(str(file))
            for name, file in files.items()
        }
        run.log({"trainer/step": step, **scalars, **media})

    def state_dict(self) -> dict[str, Any]:
        """The run's id."""
        return {"id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue that run."""
        self.id = state["id"]

    def close(self) -> None:
        """End the run, so that the next job of a multirun gets its own."""
        if self.run is not None:
            self.run.finish()
            self.run = None

    def _start(self) -> Any:
        import wandb

        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=self.tags,
            name="/".join(self.folder.parts[-2:]),
            id=self.id,
            resume="allow",
            dir=str(self.folder),
            config=dict(self.config),
            mode=("online" if is_logged_in() else "offline") if self.mode == "auto" else self.mode,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.id = self.run.id
        # Steps come from our checkpoints: across a resume W&B's own counter starts anew.
        self.run.define_metric("trainer/step", hidden=True)
        self.run.define_metric("*", step_metric="trainer/step")
        for name in ("validation/psnr", "validation/ssim"):
            self.run.define_metric(name, step_metric="trainer/step", summary="max")
        return self.run


def is_logged_in() -> bool:
    """Whether W&B would find a key: in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
