"""What tests of commands share: a small run, and typing a command without starting a process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vqgan.commands import train

SMALL = (
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

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            train.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Ended(code, out, "\n".join(line for line in err.splitlines() if "step/s" not in line))

    return run
