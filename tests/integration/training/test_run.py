"""A run from the composed config to its folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Compose
from vqgan.training.run import run


def rows(folder: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_the_promised_folder(composed: Compose, tmp_path: Path) -> None:
    run(composed("trainer.log_every=1", "loss.discriminator_start=1"), ["seed=0"])
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml", "overrides.yaml", "checkpoints", "metrics.jsonl", "codebook.jsonl", "reconstructions",
        "environment.json", "report.html", "status.json",
    }  # fmt: skip
    pictures = {path.name for path in (folder / "reconstructions").iterdir()}
    assert pictures == {"step-00000000.png", "step-00000003.png", "worst.png", "best.png", "ranking.json"}
    assert [row["step"] for row in rows(folder)] == [0, 1, 2, 3]
