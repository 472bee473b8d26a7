"""Training on clips: their length, weights from a tokenizer of pictures, several processes, and going on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import Compose
from vqgan.errors import ConfigError
from vqgan.frames import to_frames
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

PLAIN = ("optimizer=adam_fast", "schedule=constant", "model=vqmodel")
CLIPS = (*PLAIN, "backbone=causal_tiny", "backbone.temporal_resolutions=[8,4]", "data.clip_frames=5")


@pytest.mark.parametrize(("frames", "words"), [(4, "1 or 5"), (6, "5 or 9"), (16, "13 or 17")])
def test_clips_that_do_not_fill_their_codes_are_refused_with_the_nearest_that_do(
    frames: int, words: str, composed: Compose, tmp_path: Path
) -> None:
    config = composed(*CLIPS, f"data.clip_frames={frames}", "data.video_frames=20")
    with pytest.raises(ConfigError) as caught:
        make_trainer(config, tmp_path)
    expected = f"data.clip_frames must be 1 + 4·n for this backbone, as {words}, but is {frames}."
    assert str(caught.value) == expected


def test_a_tokenizer_of_pictures_is_where_one_of_clips_begins(composed: Compose, tmp_path: Path) -> None:
    pictures = composed(*PLAIN, "backbone=tiny", f"run_dir={tmp_path / 'pictures'}")
    run(pictures)
    before = make_trainer(pictures, tmp_path / "pictures")
    before.resume()
    trainer = make_trainer(composed(*CLIPS, f"init_from={tmp_path / 'pictures'}"), tmp_path / "clips")
    ours, theirs = trainer.autoencoder.eval(), before.autoencoder.eval()
    frames = to_frames(trainer.journal.validation.clips[:1, :1])
    with torch.no_grad():
        a, b = ours(frames), theirs(frames)
    assert torch.equal(a.reconstruction, b.reconstruction)
    assert torch.equal(a.indices, b.indices)
    assert any("time" in name for name, _ in ours.named_parameters())


def test_a_tokenizer_of_clips_is_none_of_pictures(composed: Compose, tmp_path: Path) -> None:
    run(composed(*CLIPS, f"run_dir={tmp_path / 'clips'}"))
    with pytest.raises(ConfigError, match="tensors unknown"):
        make_trainer(composed(*PLAIN, "backbone=tiny", f"init_from={tmp_path / 'clips'}"), tmp_path / "new")
