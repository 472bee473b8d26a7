"""A run that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import small_config
from vqgan.train import run


@pytest.fixture(scope="session")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with all loggers that was stopped once: clips, both players, PSNR measured at each step."""
    folder = tmp_path_factory.mktemp("resumed")
    always = (
        "trainer.log_every=1", "trainer.evaluate_every=1", "trainer.checkpoint_every=1", "data.clip_frames=3",
        "loss.discriminator_start=0", "trainer.discriminator_every=1", "model=vqmodel", "logger=[wandb,tensorboard]",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("NETRC", "/nonexistent")
        for name in ("CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / "wandb" / name))
        for name in ("API_KEY", "MODE", "BASE_URL", "DATA_DIR"):
            patch.delenv(f"WANDB_{name}", raising=False)
        for steps in (2, 4):
            said = ["model=vqmodel", f"trainer.steps={steps}", "data.root=/videos", "name=try"]
            run(small_config(folder, *always, f"trainer.steps={steps}"), said)
    return folder / "run"
