"""A run from the composed config to its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Compose
from vqgan.training.advice import Advisor
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer


def rows(folder: Path) -> list[dict[str, float]]:
    """The rows of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_the_promised_folder(composed: Compose, tmp_path: Path) -> None:
    run(composed("trainer.log_every=1", "loss.discriminator_start=1"), ["seed=0"])
    folder = tmp_path / "run"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml", "overrides.yaml", "checkpoints", "metrics.jsonl", "codebook.jsonl", "reconstructions",
        "environment.json", "facts.json", "report.html", "status.json",
    }  # fmt: skip
    pictures = {path.name for path in (folder / "reconstructions").iterdir()}
    assert pictures == {"step-00000000.png", "step-00000003.png", "worst.png", "best.png", "ranking.json"}
    assert [row["step"] for row in rows(folder)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("model", "key"), [("emavq", "revive_after"), ("product", "base.revive_after")])
def test_advice_knows_the_keys_of_the_quantizer_at_hand(
    model: str, key: str, composed: Compose, tmp_path: Path
) -> None:
    config = composed(f"model={model}")
    advisor = make_trainer(config, tmp_path / "run").journal.advisor
    assert isinstance(advisor, Advisor)
    assert f"model.quantizer.{key}" in advisor.setup.quantizer


def test_the_objective_says_which_checkpoint_is_the_best(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    best = folder / "checkpoints" / "best"
    run(composed("trainer.evaluate_every=1", "trainer.keep=1", "objective=-validation/psnr"))
    psnr = {row["step"]: row["validation/psnr"] for row in rows(folder)}
    lowest = min((1, 2, 3), key=psnr.__getitem__)
    assert best.resolve().name == f"step-{lowest:08d}"
    assert f"{best.resolve()}, validation/psnr {psnr[lowest]:.4g}" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="best checkpoint by -validation/psnr"):
        run(composed("trainer.keep=1", "trainer.steps=4"))
    assert best.resolve().name == "step-00000004"
    assert f"{best.resolve()}, {rows(folder)[-1]['validation/psnr']:.2f} dB" in capsys.readouterr().out


@pytest.mark.parametrize("scalar", ["train/total", "validation/lpips", "lpips"])
def test_psnr_says_it_where_the_objective_is_not_measured(composed: Compose, tmp_path: Path, scalar: str) -> None:
    said = f"objective=-{scalar}: evaluations of this run do not measure {scalar}, "
    config = composed("trainer.evaluate_every=1", "trainer.steps=2", f"objective=-{scalar}")
    with pytest.warns(UserWarning, match=said) as seen:
        run(config)
    assert len(seen) == 1
    psnr = {row["step"]: row["validation/psnr"] for row in rows(tmp_path / "run")}
    best = (tmp_path / "run" / "checkpoints" / "best").resolve()
    assert best.name == f"step-{max((1, 2), key=psnr.__getitem__):08d}"
