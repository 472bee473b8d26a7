"""PSNR and SSIM against independent implementations, and evaluation without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.support.networks import autoencoder, ema_quantizer, frames
from vqgan.frames import to_frames
from vqgan.measures import measure, psnr, ssim
from vqgan.runtime.process import ALONE
from vqgan.training.validation import Evaluation, Validation, evaluate, reconstruct, scalars_measured


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    a = frames(3, 32)[None]
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(5))
    return a, (a + noise * torch.tensor([0.02, 0.2, 0.6]).view(3, 1, 1, 1)).clamp(-1, 1)


def test_psnr_and_ssim_equal_scikit_image() -> None:
    a, b = pairs()
    for i in range(3):
        x, y = (((t[0, i].permute(1, 2, 0).double() + 1) / 2).numpy() for t in (a, b))
        assert float(psnr(a, b)[0, i]) == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1), abs=1e-3)
        expected = structural_similarity(
            x, y, channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ssim(a, b)[0, i]) == pytest.approx(expected, abs=1e-5)


def test_equal_frames_are_perfect() -> None:
    a, _ = pairs()
    assert psnr(a, a).tolist() == [[100.0] * 3]
    torch.testing.assert_close(ssim(a, a), torch.ones(1, 3))


def test_evaluation_changes_nothing() -> None:
    network = autoencoder(ema_quantizer(start_from_data=True)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    clips = torch.randint(0, 256, (5, 2, 16, 16, 3), dtype=torch.uint8)
    random_state = torch.get_rng_state()
    measured = evaluate(network, clips, batch_size=2, perceptual=None).metrics
    reconstruct(network, clips, 2)
    assert network.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert evaluate(network, clips, batch_size=5, perceptual=None).metrics == pytest.approx(measured, rel=1e-5)


def test_what_an_evaluation_measures_is_known_before() -> None:
    class Distance(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().mean(dim=(1, 2, 3))

    clips = torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)
    for perceptual in (None, Distance()):
        assert list(evaluate(autoencoder(), clips, 1, perceptual).metrics) == scalars_measured(perceptual)


def test_extremes_are_the_clips_of_lowest_and_highest_psnr() -> None:
    clips = torch.randint(0, 256, (6, 3, 16, 16, 3), dtype=torch.uint8)
    network = autoencoder()
    evaluation = evaluate(network, clips, 4, None)
    alone = [evaluate(network, clip[None], 4, None).metrics["validation/psnr"] for clip in clips]
    assert evaluation.psnr_of_clips.tolist() == pytest.approx(alone, rel=1e-5)
    by_hand = sorted(range(6), key=lambda n: alone[n])
    assert evaluation.extremes(2) == (by_hand[:2], by_hand[::-1][:2])
    assert evaluation.extremes(9) == (by_hand, by_hand[::-1])


def test_clips_are_shown_moving_and_their_worst_moment_is_found(tmp_path: Path) -> None:
    clips = torch.randint(100, 156, (5, 3, 16, 16, 3), dtype=torch.uint8)
    clips[3, 1, :8], clips[3, 1, 8:] = 0, 255
    validation = Validation(
        clips=clips, sources=[f"{n}.mp4" for n in range(5)], videos=["", *"abcd"],
        seconds=[[n + 0.1 * t for t in range(3)] for n in range(5)],
        batch_size=2, perceptual=None, pictures=2, folder=tmp_path, process=ALONE,
    )  # fmt: skip
    network = autoencoder()
    evaluation = validation.measure(network)
    of_frames = psnr(to_frames(clips), reconstruct(network, clips, 5))
    torch.testing.assert_close(evaluation.psnr, of_frames)
    assert evaluation.worst_moment() == (3, 1)
    validation.show(network, 7, evaluation)
    ranking = json.loads((tmp_path / "reconstructions" / "ranking.json").read_text())
    assert ranking["moment"] == {"frame": 1, "second": 3.1, "psnr": pytest.approx(float(of_frames[3, 1]), abs=1e-3)}
    assert [clip["source"] for clip in ranking["moving"]] == ["3.mp4", "0.mp4"], "the other is shown already"
    with Image.open(tmp_path / "reconstructions" / "moving-0.webp") as picture:
        assert picture.size == (3 * 16, 2 * 16)
        second = np.asarray(picture.convert("RGB"))[:16, 16:32].astype(int)
    assert abs(second - clips[3, 1].numpy()).mean() < 20
    assert not (tmp_path / "reconstructions" / "moving-2.webp").exists()


def test_pictures_do_not_move(tmp_path: Path) -> None:
    validation = Validation(
        clips=torch.zeros(2, 1, 16, 16, 3, dtype=torch.uint8), sources=["a", "b"], videos=["a", "b"],
        seconds=[None, None], batch_size=2, perceptual=None, pictures=2, folder=tmp_path, process=ALONE,
    )  # fmt: skip
    validation.show(autoencoder(), 7, validation.measure(autoencoder()))
    assert "moving" not in json.loads((tmp_path / "reconstructions" / "ranking.json").read_text())
    assert not [*(tmp_path / "reconstructions").glob("moving*")]


@pytest.mark.parametrize("codes", [1, 5, 128, 129, 1000, 16384])
def test_the_use_of_codes_is_recorded_by_rank(codes: int) -> None:
    counts = torch.arange(codes).flip(0)[torch.randperm(codes, generator=torch.Generator().manual_seed(3))] + (
        codes == 1
    )
    use = Evaluation({"validation/perplexity": 2.5}, counts[None], torch.zeros(1, 1)).code_use()
    assert use["codebook_size"] == codes
    assert use["dead"] == (codes > 1)
    assert use["perplexity"] == 2.5
    by_hand = sorted((counts / counts.sum()).tolist(), reverse=True)
    assert len(use["shares"]) == min(codes, 128)
    assert [use["shares"][0], use["shares"][-1]] == pytest.approx([by_hand[0], by_hand[-1]], rel=1e-4)
    assert use["shares"] == sorted(use["shares"], reverse=True)
    if codes <= 128:
        assert use["shares"] == pytest.approx(by_hand, rel=1e-4)


def test_mean_colour_is_what_a_tokenizer_must_beat() -> None:
    clips = torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)
    clips[:, :, :8] = 255
    measured = evaluate(autoencoder(), clips, 1, None).metrics
    assert measured["validation/psnr_mean_colour"] == pytest.approx(-20 * np.log10(0.5), abs=1e-3)
    assert measured["validation/usage"] * 16 == pytest.approx(round(measured["validation/usage"] * 16))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_what_is_measured_does_not_depend_on_autocast(precision: torch.dtype) -> None:
    """Smooth, bright frames: in half precision their SSIM would be above 1."""
    smooth = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), 32, mode="bicubic").clamp(0, 1)
    smooth = smooth[:, None]
    noisy = (smooth + 0.01 * torch.randn(smooth.shape)).clamp(-1, 1)

    class Distance(torch.nn.Conv2d):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return super().forward((a - b).flatten(0, 1)).square().mean(dim=(1, 2, 3))[:, None]

    network = Distance(3, 2, 3)
    with torch.no_grad():
        expected = measure(smooth, noisy, network)
        with torch.autocast("cpu", precision):
            found = measure(smooth, noisy, network)
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    assert found.keys() == {"psnr", "psnr_mean_colour", "ssim", "lpips"}
