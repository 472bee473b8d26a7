"""Advice in runs that are made to go wrong, each in its way, and in one that goes well."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Compose
from tests.faults.test_numbers import WAYS
from vqgan.data import Loader
from vqgan.training.run import run
from vqgan.training.step import Step
from vqgan.training.trainer import Trainer

pytestmark = pytest.mark.slow

SMALL = (
    "data.videos=8", "data.video_frames=8", "trainer.evaluate_every=1000", "trainer.checkpoint_every=1000",
)  # fmt: skip
ADVERSARIAL = ("loss.discriminator_start=0", "trainer.discriminator_every=1")
ALONE = "loss.discriminator_weight=0"
SICK = {  # by rule: the values that provoke it
    "codebook_collapse": (
        ALONE, "model=vqmodel", "model.quantizer.codebook_size=4096", "trainer.usage_steps=10", "trainer.steps=100",
    ),
    "entropy_falling": (
        ALONE, "model=lfq", "model.quantizer.diversity_weight=0", "optimizer.lr=3e-2", "trainer.usage_steps=5",
        "trainer.log_every=1", "trainer.steps=60",
    ),
    "lecam_idle": (
        *ADVERSARIAL, "+loss/terms=lecam", "discriminator_optimizer.lr=0", "trainer.steps=210",
    ),
    "adversarial_overwhelming": (
        "trainer.discriminator_every=1", "loss.discriminator_start=120", "loss.discriminator_weight=50",
        "trainer.steps=240", "trainer.log_every=5", "data.batch_size=8",
    ),
    "discriminator_stuck": (*ADVERSARIAL, "discriminator_optimizer.lr=0", "trainer.steps=510"),
    "discriminator_winning": (
        *ADVERSARIAL, "loss.discriminator_weight=1e-3", "optimizer.lr=1e-6", "discriminator_optimizer.lr=1e-2",
        "loss/adversarial=vanilla", "trainer.steps=210",
    ),
    "adaptive_weight_clamped": (*ADVERSARIAL, "loss.balance.max_weight=1e-3", "trainer.steps=110"),
    "validation_diverging": (
        ALONE, "data.videos=3", "data.video_frames=1", "data.flip=false", "data.crop=center", "optimizer.lr=2e-4",
        "model.quantizer.codebook_size=64", "trainer.evaluate_every=20", "trainer.steps=120",
    ),
}  # fmt: skip
LONG = (
    "adaptive_weight_clamped", "adversarial_overwhelming", "lecam_idle", "discriminator_stuck", "discriminator_winning",
    "validation_diverging",
)  # fmt: skip


def advice(folder: Path) -> list[dict[str, Any]]:
    file = folder / "advice.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in SICK],
)
def test_a_run_in_trouble_is_told(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run(composed(*SMALL, *SICK[name]))
    assert name in [row["name"] for row in advice(tmp_path / "run")]
    assert_shown(tmp_path / "run", capsys.readouterr().out)


def assert_shown(folder: Path, said: str) -> None:
    """Each advice once while the run trains, and by name at its end."""
    before, _, after = said.partition("\nDone.\n")
    for row in advice(folder):
        assert row.keys() == {"step", "name", "text"}
        title = row["name"].replace("_", " ")
        assert before.count(f"Advice at step {row['step']}, {title}: {row['text']}\n") == 1
        assert f"{title} (step {row['step']})" in after
    assert str(folder / "advice.jsonl") in after


def test_a_run_that_waits_for_data_is_told(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Loader.batches

    def slow(self: Loader, first: int) -> Any:
        for batch in original(self, first):
            time.sleep(0.005)
            yield batch

    def quick(self: Trainer, *arguments: Any, first: Any = Trainer._step) -> None:
        if self.done == 0:
            first(self, *arguments)

    monkeypatch.setattr(Loader, "batches", slow)
    monkeypatch.setattr(Trainer, "_step", quick)
    run(composed(*SMALL, ALONE, "trainer.steps=200"))
    assert [(row["name"], row["step"]) for row in advice(tmp_path / "run")] == [("data_bound", 200)]
    assert_shown(tmp_path / "run", capsys.readouterr().out)


def test_steps_that_are_not_finite_are_told(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS["loss of the autoencoder"](monkeypatch, {2, 4}, float("nan"))
    run(composed(*SMALL, ALONE, "trainer.steps=6", "trainer.log_every=1"))
    assert [(row["name"], row["step"]) for row in advice(tmp_path / "run")] == [("nonfinite_steps", 3)]
    assert_shown(tmp_path / "run", capsys.readouterr().out)


def test_a_run_that_goes_well_is_told_nothing(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(composed(*SMALL, "trainer.steps=110", "loss.discriminator_start=60", "trainer.usage_steps=30"))
    assert not (tmp_path / "run" / "advice.jsonl").exists()
    assert "advice" not in capsys.readouterr().out.lower()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_is_told_nothing(composed: Compose, tmp_path: Path) -> None:
    """Its discriminator does not tell the two apart for a hundred of its steps, and then does."""
    demo = (
        "backbone.channels=16", "backbone.resolution=64", "model.quantizer.codebook_size=1024", "data.batch_size=8",
        "discriminator.channels=32", "data.validation_clips=24", "trainer.steps=600", "data.workers=1",
    )  # fmt: skip
    run(composed(*demo))
    said = [row["name"] for row in advice(tmp_path / "run")]
    assert [name for name in said if name != "data_bound"] == [], "that one is the machine's"


@pytest.mark.slow
def test_a_resumed_run_is_told_the_same_and_not_again(
    composed: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed once after advice that no checkpoint knows of, and once after one that it knows and one that it misses."""
    values = (
        *SMALL, ALONE, "model=vqmodel", "model.quantizer.codebook_size=1024", "optimizer.lr=1e-9", "data.batch_size=8",
        "trainer.usage_steps=5",
        "trainer.log_every=1", "trainer.checkpoint_every=28", "trainer.steps=38",
    )  # fmt: skip
    monkeypatch.setattr(
        "vqgan.training.advice.LOW_USAGE", 0.5
    )  # weights that stand still use a fifth of what could be used
    WAYS["loss of the autoencoder"](monkeypatch, {30}, float("nan"))
    run(composed(*values, f"run_dir={tmp_path / 'whole'}"))
    expected = advice(tmp_path / "whole")
    assert [row["name"] for row in expected] == ["codebook_collapse", "nonfinite_steps"]
    assert 15 <= expected[0]["step"] < 25
    capsys.readouterr()
    original = Step.__call__
    for cut, known in ((25, 1), (34, 2)):
        with monkeypatch.context() as patch:
            patch.setattr(Step, "__call__", cut_at(cut, original))
            with pytest.raises(Killed):
                run(composed(*values))
        assert advice(tmp_path / "run") == expected[:known]
    run(composed(*values))
    assert advice(tmp_path / "run") == expected
    said = capsys.readouterr().out
    assert [said.count(row["text"]) for row in expected] == [2, 2], "the second and the third run each told one again"
    _, _, summary = said.partition("\nDone.\n")
    assert all(f"(step {row['step']})" in summary for row in expected)


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def cut_at(cut: int, original: Any) -> Any:
    def step(self: Step, step: int, clips: Any) -> Any:
        if step == cut:
            raise Killed
        return original(self, step, clips)

    return step


def test_tensorboard_has_the_text(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WAYS["loss of the autoencoder"](monkeypatch, {2}, float("nan"))
    run(composed(*SMALL, ALONE, "trainer.steps=3", "trainer.log_every=1", "logger=tensorboard"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("advice/nonfinite_steps/text_summary")
    (row,) = advice(tmp_path / "run")
    assert (event.step, event.tensor_proto.string_val[0].decode()) == (3, row["text"])


@pytest.mark.parametrize("private", [False, True])
def test_weights_and_biases_gives_an_alert(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name))
    WAYS["loss of the autoencoder"](monkeypatch, {2}, float("nan"))
    values = ("logger=wandb", "logger.wandb.mode=offline", f"logger.private={private}")
    run(composed(*SMALL, ALONE, "trainer.steps=3", "trainer.log_every=1", *values))
    (row,) = advice(tmp_path / "run")
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = offline.read_bytes()
    for part in ("nonfinite steps", f"Step 3: {row['text']}", "WARN"):
        assert part.encode() in content
