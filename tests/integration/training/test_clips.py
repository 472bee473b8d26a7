"""Training on clips: their length, weights from a tokenizer of pictures, several processes, and going on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import Compose
from tests.support.runs import digest, finish, rows, start, train
from vqgan.errors import ConfigError
from vqgan.frames import to_frames
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

PLAIN = ("optimizer=adam_fast", "schedule=constant", "model=vqmodel")
CLIPS = (*PLAIN, "backbone=causal_tiny", "backbone.temporal_resolutions=[8,4]", "data.clip_frames=5")
ALL = (
    *CLIPS, "discriminator=patchgan_3d_small", "discriminator.norm=actnorm", "+loss/terms=temporal",
    "trainer.picture_share=0.4", "trainer.clip_lengths=[1,5]", "trainer.evaluate_every=1",
    "loss.discriminator_start=1", "trainer.discriminator_every=1",
)  # fmt: skip


@pytest.mark.parametrize(("frames", "words"), [(4, "1 or 5"), (6, "5 or 9"), (16, "13 or 17")])
def test_clips_that_do_not_fill_their_codes_are_refused_with_the_nearest_that_do(
    frames: int, words: str, composed: Compose, tmp_path: Path
) -> None:
    config = composed(*CLIPS, f"data.clip_frames={frames}", "data.video_frames=20")
    with pytest.raises(ConfigError) as caught:
        make_trainer(config, tmp_path)
    expected = f"data.clip_frames must be 1 + 4·n for this backbone, as {words}, but is {frames}."
    assert str(caught.value) == expected


@pytest.mark.parametrize("backbone", ["tiny", "small"])
def test_a_tokenizer_of_pictures_is_where_one_of_clips_begins(backbone: str, composed: Compose, tmp_path: Path) -> None:
    pictures = composed(*PLAIN, f"backbone={backbone}", f"run_dir={tmp_path / 'pictures'}")
    run(pictures)
    before = make_trainer(pictures, tmp_path / "pictures")
    before.resume()
    begun = composed(*CLIPS, f"backbone=causal_{backbone}", f"init_from={tmp_path / 'pictures'}")
    trainer = make_trainer(begun, tmp_path / "clips")
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


def test_some_steps_see_pictures(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(composed(*CLIPS, "trainer.picture_share=0.4"), tmp_path)
    seen: list[tuple[int, ...]] = []
    forward = trainer.autoencoder.forward
    monkeypatch.setattr(trainer.autoencoder, "forward", lambda x: (seen.append(tuple(x.shape[:2])), forward(x))[1])
    clips = torch.randint(256, (2, 5, 16, 16, 3), dtype=torch.uint8)
    for number in range(12):
        trainer.step(number, [clips])
    assert {*seen} == {(2, 5), (10, 1)}
    step = trainer.step
    assert [shape == (10, 1) for shape in seen] == [step.sees_pictures(n) for n in range(12)]
    assert sum(step.sees_pictures(n) for n in range(2000)) / 2000 == pytest.approx(0.4, abs=0.05)


def test_steps_see_clips_of_several_lengths(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(composed(*CLIPS, "data.clip_frames=13", "trainer.clip_lengths=[1,5,13]"), tmp_path)
    seen: list[torch.Tensor] = []
    forward = trainer.autoencoder.forward
    monkeypatch.setattr(trainer.autoencoder, "forward", lambda x: (seen.append(x), forward(x))[1])
    clips, step = torch.randint(256, (2, 13, 16, 16, 3), dtype=torch.uint8), trainer.step
    for number in range(12):
        step(number, [clips])
    assert {tuple(x.shape[:2]) for x in seen} == {(26, 1), (4, 5), (2, 13)}, "a rest of three frames is left out"
    (short,) = {step.length(n, 13): x for n, x in enumerate(seen) if len(x) == 4}.items()
    assert short[0] == 5
    assert torch.equal(short[1], to_frames(torch.stack([clip[t : t + 5] for clip in clips for t in (0, 5)])))
    assert [step.frames(n, [clips, clips]) for n in range(12)] == [2 * len(x) * x.shape[1] for x in seen]
    drawn = [step.length(n, 13) for n in range(2000)]
    assert all(drawn.count(length) / 2000 == pytest.approx(1 / 3, abs=0.04) for length in (1, 5, 13))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ("[5,6]", "trainer.clip_lengths must be 1 + 4·n for this backbone, as 5 or 9, but is 6."),
        ("[5,17]", "trainer.clip_lengths must be at most data.clip_frames=13, the frames that are read, but is 17."),
        ("[0]", "trainer.clip_lengths must be a list of positive numbers of frames, but is [0]."),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths: str, expected: str, composed: Compose, tmp_path: Path) -> None:
    config = composed(*CLIPS, "data.clip_frames=13", f"trainer.clip_lengths={lengths}")
    with pytest.raises(ConfigError) as caught:
        make_trainer(config, tmp_path)
    assert str(caught.value) == expected


RECIPE = (
    "backbone.resolution=32", "backbone.norm_groups=4", "backbone.latent_channels=8", "data.fps=24", "data.videos=4",
    "discriminator.layers=1", "loss.perceptual_weight=0", "loss.discriminator_start=1", "schedule.warmup_steps=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["video_f8", "video_f16"])
def test_recipes_of_clips_train(recipe: str, composed: Compose, tmp_path: Path) -> None:
    trainer = run(composed(f"experiment={recipe}", *RECIPE, "trainer.steps=2", "trainer.log_every=1"))
    assert (trainer.done, trainer.autoencoder.downsampling.time) == (2, 4)
    last = rows(tmp_path / "run")[-1]
    assert {"adversarial/lecam", "train/discriminator", "validation/psnr"} <= last.keys()


@pytest.mark.slow
def test_a_run_on_clips_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, vgg16_weights: Path) -> None:
    perceptual = ("loss.perceptual_weight=1", "loss.perceptual_frames=2", f"loss.perceptual.weights={vgg16_weights}")
    train(tmp_path / "whole", *ALL, *perceptual, "trainer.steps=6")
    for steps, workers in ((3, 0), (6, 1)):
        train(tmp_path / "parts", *ALL, *perceptual, f"trainer.steps={steps}", f"data.workers={workers}")
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert rows(tmp_path / "parts")[-1] == rows(tmp_path / "whole")[-1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_networks_train_on_clips_to_the_same_numbers(tmp_path: Path) -> None:
    """Of two lengths; in processes of their own, as the compiler cannot look through checks of shapes."""
    values = (
        *CLIPS, "backbone=causal_small", "trainer.clip_lengths=[1,5]", "trainer.steps=3",
        # What is compiled takes most of the time: one halving, of the sides and of time.
        "backbone.channel_multipliers=[0,2]", "backbone.temporal_downsampling=2", "backbone.temporal_resolutions=[8]",
    )  # fmt: skip
    for name in ("false", "true"):
        typed = (*values, "loss.discriminator_weight=0", f"trainer.compile={name}")
        code, _, said = finish(start(tmp_path / name, *typed), timeout=900)
        assert code == 0, said
    for a, b in zip(rows(tmp_path / "false"), rows(tmp_path / "true"), strict=True):
        for name in {"train/pixel", "validation/psnr"} & a.keys():
            assert a[name] == pytest.approx(b[name], rel=1e-3), f"step {a['step']}: {name}"


@pytest.mark.slow
def test_two_processes_train_on_clips_as_one_does(tmp_path: Path) -> None:
    values = (*ALL, "discriminator.norm=batch", "trainer.steps=4", "loss.balance.max_weight=0.1")
    train(tmp_path / "one", *values)
    train(tmp_path / "two", *values, processes=2)
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert one.keys() == two.keys()
        for name in {"train/pixel", "train/temporal", "validation/psnr"} & one.keys():
            assert one[name] == pytest.approx(two[name], rel=2e-3), name
