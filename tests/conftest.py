"""What all tests share: shapes and types are checked at run time, and nothing leaves the test's own folder."""

from __future__ import annotations

import functools
import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests run at a time; torch looks when it is imported

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from jaxtyping import install_import_hook
from omegaconf import DictConfig

import tests.support.typechecker  # noqa: F401  # the hook looks it up by name
from tests.support import scheduling
from tests.support.parts import PLAIN

ROOT = Path(__file__).resolve().parents[1]
SHAPED = [  # the modules whose annotations speak of shapes
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in (ROOT / "vqgan").rglob("*.py")
    if re.search(r"^from (jaxtyping|vqgan\.frames) import", file.read_text(encoding="utf-8"), re.MULTILINE)
]
with install_import_hook(SHAPED, "tests.support.typechecker.typechecker"):
    import vqgan.training.run  # noqa: F401

from vqgan.config.build import conf_dir  # noqa: E402
from vqgan.data import Limits  # noqa: E402
from vqgan.losses.lpips import vgg16_features  # noqa: E402
from vqgan.runtime.signals import STOP_SIGNALS  # noqa: E402

Compose = Callable[..., DictConfig]
LIMITS = Limits(seconds=10, megabytes=512, stall_seconds=60)
REAL_VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "videos"


def pytest_collection_finish() -> None:
    """What was imported stays: a full collection, of which the start of each run has one, takes 0.2 s with all that."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No key of the user's, no network, one cache of synthetic videos for all, no priority, signals as they were."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nonexistent")
    HydraConfig.instance().cfg = None  # of a test before, which ran a command within this process
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    # A third of a second of a run's start, for a line of its head; its own tests ask for it.
    monkeypatch.setattr("vqgan.training.tokenizer.expected_growth", lambda *_: None)
    # A command that is run within this process ends with stop signals ignored, as would all that is started from here.
    before = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    assert scheduling.is_usual(), "what is started from here would keep all others from running"


def small_config(folder: Path, *overrides: str) -> DictConfig:
    """Compose a config as the command line would, for a small run of a few steps in `folder`."""
    small = [
        f"run_dir={folder / 'run'}", "logger=none", "trainer.steps=3", "trainer.device=cpu", "data.workers=0",
        "data.validation_clips=2", "data.batch_size=2", "backbone.resolution=16",
        "discriminator.channels=4", "trainer.allow_slow_precision=true",
    ]  # fmt: skip
    if not any(override.startswith("experiment=") for override in overrides):  # which has parts of its own
        small += PLAIN
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*small, *overrides])
    if "channels" in config.backbone and not any("backbone.channels=" in override for override in overrides):
        config.backbone.channels = 8
    quantizer = config.model.get("quantizer")
    has_size = isinstance(quantizer, DictConfig) and "codebook_size" in quantizer  # in some it follows from others
    if has_size and not any("model.quantizer.codebook_size=" in override for override in overrides):
        config.model.quantizer.codebook_size = 16
    return config


@pytest.fixture
def composed(tmp_path: Path) -> Compose:
    """`small_config` in `tmp_path`."""
    return functools.partial(small_config, tmp_path)


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """Nine real videos; tests that need them are skipped where they are not."""
    if not REAL_VIDEOS.is_dir():
        pytest.skip("no folder of real videos")
    return REAL_VIDEOS


@pytest.fixture(scope="session")
def vgg16_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the one that would be downloaded, with random weights."""
    file = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in vgg16_features().state_dict().items()}, file)
    return file
