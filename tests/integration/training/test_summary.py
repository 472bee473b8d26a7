"""What a person reads as a run begins and ends: the data, what tokens cost, was it worth it, what comes next."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Compose
from vqgan.training import summary
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

FEW = "few, and the others are never chosen"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], "f4: 4 × 4 = 16 a frame, 4 bits each, 0.25 bits a pixel"),
        (["model=residual", "model.quantizer.depth=3"], "f4: 4 × 4 × 3 = 48 a frame, 10 bits each, 1.88 bits a pixel"),
        (["backbone.channel_multipliers=[1,2]"], "f2: 8 × 8 = 64 a frame, 4 bits each, 1 bits a pixel"),
        (  # 2 times of codes for 5 frames: 2 · 16 · 4 bits of 5 · 256 pixels
            ["backbone=causal_tiny", "data.clip_frames=5"],
            "f4k4: 4 × 4 = 16 a latent frame, 4 bits each, 0.1 bits a pixel",
        ),
    ],
)
def test_the_head_says_what_tokens_cost(typed: list[str], expected: str, composed: Compose, tmp_path: Any) -> None:
    config = composed(*typed)
    said = dict(summary.beginning(make_trainer(config, tmp_path), config))
    assert said["tokens"] == expected
    frames = config.data.clip_frames
    assert said["a step"] == f"2 clips of {frames} frame{'s' * (frames > 1)}, 16 × 16 pixels; 3 steps"
    assert said["data"].startswith(f"SyntheticVideos in {config.data.root}: ")
    assert "data.val_root or data.val_fraction gives more" in said["clips"]


def test_the_head_says_to_what_lengths_clips_are_cut(composed: Compose, tmp_path: Any) -> None:
    config = composed("data.clip_frames=9", "trainer.clip_lengths=[1,5,9]")
    said = dict(summary.beginning(make_trainer(config, tmp_path), config))
    assert said["a step"] == "2 clips of 9 frames, cut to 1 or 5 or 9, 16 × 16 pixels; 3 steps"


def test_the_end_says_what_is_worse_than_a_colour_and_what_comes_next(composed: Compose) -> None:
    trainer = run(composed("trainer.steps=1"))
    values = trainer.journal.last_validation
    assert values["validation/psnr"] < values["validation/psnr_mean_colour"], "after one step"
    ends = summary.end(trainer)
    assert "worse than a flat colour" in dict(ends)["  mean colour alone"]
    assert [text.split()[1] for _, text in ends[-3:]] == ["evaluate", "encode", "export"]
    trainer.journal.last_validation = {**values, "validation/psnr": 40.0}
    assert "worse" not in dict(summary.end(trainer))["  mean colour alone"]


def test_the_end_says_when_few_codes_are_in_use(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run(composed("trainer.steps=1"))
    values = trainer.journal.last_validation  # two frames of 16 positions could show all 16 codes
    for usage, few in ((1 / 16, True), (0.5, False)):
        trainer.journal.last_validation = {**values, "validation/usage": usage}
        monkeypatch.setattr(trainer.step, "row", lambda _: {"codebook/usage": 1 / 16})
        assert (FEW in dict(summary.end(trainer))["codes in use"]) is few
        monkeypatch.setattr(trainer.step, "row", lambda _: {"codebook/usage": 0.9})
        assert FEW not in dict(summary.end(trainer))["codes in use"], "few clips cannot tell where training chose them"


def test_more_clips_a_step_than_there_are_is_said(composed: Compose, tmp_path: Any) -> None:
    config = composed("data.batch_size=40", "data.videos=4", "data.video_frames=8", f"data.root={tmp_path / 'v'}")
    with pytest.warns(UserWarning, match=r"A step takes 40 clips, and there are 24 to train on: .*data.batch_size"):
        make_trainer(config, tmp_path)
