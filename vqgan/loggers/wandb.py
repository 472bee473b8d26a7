"""Weights & Biases."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vqgan.errors import ConfigError
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
        mode: `auto` is what `WANDB_MODE` says, else online when logged in (`WANDB_API_KEY`, or `wandb login`) and
            reachable, and offline otherwise; `online` or `offline` insist. Offline runs are uploaded later with
            `wandb sync`.

    Raises:
        ConfigError: `online`, and W&B cannot be reached or does not take the key.
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

        mode = chosen_mode() if self.mode == "auto" else self.mode
        try:
            self.run = self._open(mode)
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            if self.mode != "auto":
                raise ConfigError(
                    f"logger.wandb.mode={self.mode}: {reason} Log in, or take logger.wandb.mode=offline or logger=none."
                ) from None
            warnings.warn(f"Weights & Biases cannot be used online ({reason}); this run is kept offline.", stacklevel=3)
            self.run = self._open("offline")
        self.id = self.run.id
        # Steps come from our checkpoints: across a resume W&B's own counter starts anew.
        self.run.define_metric("trainer/step", hidden=True)
        self.run.define_metric("*", step_metric="trainer/step")
        for name in ("validation/psnr", "validation/ssim"):
            self.run.define_metric(name, step_metric="trainer/step", summary="max")
        return self.run

    def _open(self, mode: Any) -> Any:
        import wandb

        return wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=self.tags,
            name="/".join(self.folder.parts[-2:]),
            id=self.id,
            resume="allow",
            dir=str(self.folder),
            config=dict(self.config),
            mode=mode,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )


def chosen_mode() -> str:
    """`WANDB_MODE` if it is set, else `online` if W&B would find credentials, else `offline`."""
    import wandb
    from wandb.sdk.lib import wbauth

    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return "online"
    settings = wandb.setup().settings
    return "online" if settings.api_key or wbauth.read_netrc_auth(host=settings.base_url) else "offline"
