"""What tests share: small runs, typing a command without starting a process, and a browser."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import small_config
from tests.support.browser import CHROMIUM, DESKTOP, PHONE, Open, is_remote
from tests.support.parts import PLAIN
from vqgan.commands import train
from vqgan.runtime.signals import StopSignals
from vqgan.training.run import run

SMALL = (
    *PLAIN,
    "trainer.device=cpu", "data.workers=0", "data.validation_clips=2", "data.batch_size=2", "backbone.channels=8",
    "backbone.resolution=16", "model.quantizer.codebook_size=16", "discriminator.channels=4", "logger=none",
    "trainer.log_every=1", "trainer.steps=1",
)  # fmt: skip


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    error: str

    @property
    def paragraph(self) -> str:
        """The error's text; it must be one paragraph, and no traceback."""
        lines = self.error.strip().splitlines()
        assert len(lines) == 1, self.error
        return lines[0]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`python train.py ARGUMENTS` in `tmp_path`, without the seconds that a new process needs to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run_typed(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            with StopSignals() as stop, stop.at_once():  # as vqgan.commands.run has it
                train.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Ended(code, out, "\n".join(line for line in err.splitlines() if "step/s" not in line))

    return run_typed


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Open a file; in the end nothing was said on the console, and nothing asked of a network."""
    complaints: list[str] = []
    contexts = []

    def open_file(file: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Any:
        phone = size == PHONE
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, is_mobile=phone, has_touch=phone
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
        tab.on("request", lambda request: complaints.append(request.url) if is_remote(request.url) else None)
        tab.goto(file.as_uri())
        tab.wait_for_selector("footer")
        return tab

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []


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
