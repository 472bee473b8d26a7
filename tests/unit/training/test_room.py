"""What is said of memory before it is taken, against what the allocator then counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.conftest import Compose, small_config
from tests.support.processes import together
from vqgan.runtime.process import this_process
from vqgan.training import room, summary
from vqgan.training.step import Step
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

CAUSAL = ("backbone=causal_tiny", "data.clip_frames=5", "discriminator=patchgan_3d_small", "discriminator.channels=8")
PICTURES = ("data.clip_frames=9", "trainer.picture_share=0.5", "loss.discriminator_start=100")
SMALL = ("backbone=small", "backbone.channels=16", "backbone.decoder_channels=16", "model=ibq", "optimizer=muon")


def grown(step: Step, shape: tuple[int, ...], number: int) -> int:
    """Bytes that the allocator gave out beyond those that it took back, at most, in a step on empty clips."""
    clips = [torch.zeros(shape, dtype=torch.uint8)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(number, clips)
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def shape_of(trainer: Trainer) -> tuple[int, ...]:
    return (trainer.loader.share, *trainer.journal.validation.clips.shape[1:])


@pytest.mark.filterwarnings("ignore:Profiler")
@pytest.mark.parametrize(
    ("overrides", "number"),
    [
        (("loss.discriminator_start=1",), 0),
        (("loss.discriminator_start=1", "trainer.weight_average=0.1"), 1),
        ((*SMALL, "loss.discriminator_start=100"), 0),
        ((*CAUSAL, "loss.discriminator_start=0"), 0),
        (("model=revived", "trainer.precision=bf16", "loss.discriminator_start=0"), 0),
    ],
    ids=["alone", "adversarial", "small", "clips", "bf16"],
)
def test_the_estimate_is_within_a_quarter_of_what_is_measured(
    overrides: tuple[str, ...], number: int, composed: Compose, tmp_path: Path
) -> None:
    trainer = make_trainer(composed("data.resolution=32", "data.batch_size=4", *overrides), tmp_path / "run")
    before, random = trainer.autoencoder.last_layer.clone(), torch.get_rng_state()
    expected = room.expected_growth(trainer.step, shape_of(trainer)[1:], trainer.loader.share, number)
    assert torch.equal(trainer.autoencoder.last_layer, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for player in trainer.step.players for p in player.network.parameters())
    assert expected == pytest.approx(grown(trainer.step, shape_of(trainer), number), rel=0.25)


@pytest.mark.filterwarnings("ignore:Profiler")
def test_pictures_among_clips_are_reckoned_with(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqgan.training.tokenizer.expected_growth", room.expected_growth)
    config = composed("data.resolution=32", "data.batch_size=4", *CAUSAL, *PICTURES)
    trainer = make_trainer(config, tmp_path / "run")
    trainer.began_with = 2**30
    clips, frames, *picture = shape_of(trainer)
    whole = room.expected_growth(trainer.step, (frames, *picture), clips, 0)
    assert whole is not None
    assert trainer.expected_peak is not None
    pictures = grown(trainer.step, (clips * frames, 1, *picture), 0)
    assert trainer.expected_peak - 2**30 > 1.1 * whole
    assert trainer.expected_peak - 2**30 == pytest.approx(pictures, rel=0.25)


def expected_and_grown(folder: Path) -> tuple[int | None, int]:
    """Of this process's share of a step."""
    config = small_config(folder, "data.resolution=32", "data.batch_size=4", "loss.discriminator_start=0")
    config.backbone.channels = 32  # so that gradients weigh as much as what they are of
    trainer = make_trainer(config, folder, this_process())
    growth = room.expected_growth(trainer.step, shape_of(trainer)[1:], trainer.loader.share, 0)
    return growth, grown(trainer.step, shape_of(trainer), 0)


@pytest.mark.slow
def test_so_it_is_in_each_of_several_processes(tmp_path: Path) -> None:
    """With the copies of gradients that travel, and without anybody waiting for anybody."""
    for expected, measured in together(2, expected_and_grown, tmp_path):
        assert expected == pytest.approx(measured, rel=0.25)


def test_the_end_of_a_run_has_both_figures(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqgan.training.tokenizer.expected_growth", lambda *_: 3 * 2**30)
    trainer = make_trainer(composed(), tmp_path / "run")
    trainer.began_with = 2**30
    trainer.step.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: int(3.5 * 2**30))
    trainer.journal.last_validation = {"validation/psnr": 20.0, "validation/psnr_mean_colour": 10.0,
                                       "validation/ssim": 0.5, "validation/usage": 0.5}  # fmt: skip
    monkeypatch.setattr(summary, "_codes", lambda _: "")
    monkeypatch.setattr(summary, "speed", lambda _: "")
    monkeypatch.setattr(summary, "_best_checkpoint", lambda _: "")
    assert dict(summary.end(trainer))["memory"] == "3.5 GiB at the peak; expected were 4 GiB"


def test_the_head_of_a_run_says_what_it_will_take(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqgan.training.tokenizer.expected_growth", lambda *_: 3 * 2**30)
    config = composed()
    trainer = make_trainer(config, tmp_path / "run")
    trainer.began_with = 2**30
    assert dict(summary.beginning(trainer, config))["memory"] == "about 4 GiB of the process at the peak of a step"


def test_a_part_that_looks_at_what_it_computes_gets_no_estimate(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(composed(), tmp_path / "run")
    original = Step.autoencoder_gradients

    def looks(self: Step, number: int, frames: torch.Tensor, parts: int) -> object:
        assert ((frames > 0) << 1).max() < 3
        return original(self, number, frames, parts)

    monkeypatch.setattr(Step, "autoencoder_gradients", looks)
    assert room.expected_growth(trainer.step, shape_of(trainer)[1:], 2, 0) is None
    assert caplog.text == "", "torch calls it an error"


@pytest.mark.parametrize(
    ("clip", "clips", "gigabytes", "said"),
    [
        ((5, 64, 64, 3), 7, 7, r"data\.batch_size=3 trainer\.accumulate=4, which would save about 4 GiB"),
        ((5, 64, 64, 3), 1, 4, r"half of data\.clip_frames=5, which would save about 2 GiB"),
        ((1, 64, 96, 3), 1, 4, r"data\.resolution=32, which would save about 3 GiB"),
        ((1, 64, 64, 3), 4, 0, r"half the backbone\.channels, which would save about 0"),
    ],
)
def test_the_number_that_helps_most(
    clip: tuple[int, ...], clips: int, gigabytes: int, said: str, composed: Compose, tmp_path: Path
) -> None:
    step = make_trainer(composed(), tmp_path / "run").step
    peak = 2**30 + room.kept(step) + gigabytes * 2**30
    found = room.what_helps(peak, 2**30, step, clip, clips, 2)
    assert re.search(said, found), found
