"""The evaluator against NumPy, SciPy and scikit-image, on a tokenizer whose mistakes are known; and its memory."""

from __future__ import annotations

import gc
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tests.support.clips import clip_tokenizer
from tests.support.feature_files import i3d_file, inception_file, publish
from tests.support.networks import BACKBONE, vector_quantizer
from vqgan.autoencoder import Autoencoder, AutoencoderOutput
from vqgan.backbones import Convolutional
from vqgan.errors import CheckpointError, InvalidValueError
from vqgan.evaluation.evaluator import Evaluator, Measurement
from vqgan.evaluation.figures import UNITS
from vqgan.evaluation.networks import WeightFiles
from vqgan.quantizers import Quantized

VALUES: dict[str, Any] = {
    "clips": None, "batch_frames": 8, "device": "cpu", "precision": "fp32", "replicates": 100, "confidence": 0.95,
    "seed": 0, "download": False,
}  # fmt: skip
SIDE, CODES = 16, 16


class Dimmed(Autoencoder):
    """Takes a tenth of each frame's contrast away; its codes are how bright each quarter is."""

    def __init__(self) -> None:
        super().__init__(Convolutional(**BACKBONE), vector_quantizer(CODES))

    def forward(self, frames: Tensor) -> AutoencoderOutput:
        quarters = torch.nn.functional.adaptive_avg_pool2d(frames.mean(2), 2)
        indices = ((quarters + 1) / 2 * CODES).long().clamp(0, CODES - 1)
        return AutoencoderOutput(frames * 0.9, Quantized(frames, indices, torch.zeros(()), {}))


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def evaluator(**values: Any) -> Evaluator:
    files = {key: values.pop(key, None) for key in ("vgg16", "inception", "i3d")}
    return Evaluator(**{**VALUES, **values}, weights=WeightFiles(**files))


def clips(count: int, frames: int = 3, per_video: int = 2) -> Iterator[tuple[Path, Tensor]]:
    """Clips of noise, each video of its own brightness."""
    for number in range(count):
        video = number // per_video
        rng = np.random.default_rng([7, number])
        low = int(np.random.default_rng([8, video]).integers(0, 150))
        levels = rng.integers(low, low + 100, (frames, SIDE, SIDE, 3))
        yield Path(f"{video}.mp4"), torch.from_numpy(levels.astype(np.uint8))


def as_seen(levels: np.ndarray) -> np.ndarray:
    """What `Dimmed` makes of 8-bit video, in 8 bits."""
    return np.round((levels / 127.5 - 1) * 0.9 * 127.5 + 127.5).astype(np.uint8)


def test_every_figure_equals_an_independent_one() -> None:
    measured = evaluator().measure(Dimmed(), clips(6))
    x = np.stack([clip.numpy() for _, clip in clips(6)])
    y = as_seen(x.astype(np.float64))
    pairs = list(zip(x.reshape(-1, SIDE, SIDE, 3), y.reshape(-1, SIDE, SIDE, 3)))
    structure = {"channel_axis": 2, "data_range": 255, "gaussian_weights": True, "use_sample_covariance": False}
    quarters = x.astype(np.float64).reshape(18, 2, 8, 2, 8, 3).mean((2, 4, 5)) / 255
    counts = np.bincount(np.minimum(quarters * CODES, CODES - 1).astype(int).ravel(), minlength=CODES)
    bits = scipy.stats.entropy(counts, base=2)
    means = [(a, np.broadcast_to(a.mean((0, 1)), a.shape)) for a, _ in pairs]
    expected = {
        "psnr": np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs]),
        "psnr_mean_colour": np.mean([peak_signal_noise_ratio(a / 255, b / 255, data_range=1) for a, b in means]),
        "ssim": np.mean([structural_similarity(a, b, **structure) for a, b in pairs]),
        "usage": (counts > 0).mean(),
        "perplexity": 2**bits,
        "bits_per_token": bits,
        "bits_per_pixel": bits * 4 / SIDE**2,
        "bits_per_pixel_fixed": 4 * 4 / SIDE**2,
        "flicker": np.abs(np.diff(y.astype(int), axis=1) - np.diff(x.astype(int), axis=1)).mean(),
    }
    assert (measured.videos, measured.clips, measured.frames) == (3, 6, 18)
    assert list(measured.metrics) == list(UNITS)
    for name, value in expected.items():
        assert measured.metrics[name].value == pytest.approx(float(value), rel=1e-4), name
        assert measured.metrics[name].reason is None


def test_intervals_hold_their_values() -> None:
    metrics = evaluator().measure(Dimmed(), clips(20)).metrics
    for name in ("psnr", "psnr_mean_colour", "ssim", "flicker", "perplexity", "bits_per_token", "bits_per_pixel"):
        metric = metrics[name]
        assert metric.low is not None
        assert metric.high is not None
        assert metric.value is not None
        assert metric.low <= metric.value <= metric.high
        assert metric.low < metric.high
    assert all(metrics[name].low is None for name in ("usage", "bits_per_pixel_fixed"))


@pytest.mark.parametrize("batch_frames", [1, 2, 100])
def test_how_frames_are_grouped_changes_nothing(batch_frames: int) -> None:
    expected = evaluator().measure(Dimmed(), clips(5)).metrics
    found = evaluator(batch_frames=batch_frames).measure(Dimmed(), clips(5)).metrics
    for name, metric in expected.items():
        for part in ("value", "low", "high"):
            a, b = getattr(found[name], part), getattr(metric, part)
            assert (a is None) == (b is None)
            assert a is None or a == pytest.approx(b, rel=1e-6), (name, part)


def test_one_video_has_no_interval_and_one_frame_no_flicker() -> None:
    metrics = evaluator().measure(Dimmed(), clips(4, frames=1, per_video=4)).metrics
    assert all(metric.low is None and metric.high is None for metric in metrics.values())
    assert metrics["flicker"].value is None
    assert metrics["flicker"].reason == "clips have one frame; take longer ones: data.clip_frames=16"


def test_a_missing_network_is_a_reason_and_no_figure() -> None:
    metrics = evaluator(inception="no/such/file").measure(Dimmed(), clips(2)).metrics
    for name, key in ("lpips", "vgg16"), ("rfid", "inception"), ("rfvd", "i3d"):
        assert metrics[name].value is None
        assert f"weights.{key}=" in (metrics[name].reason or "")


def by_samples(x: np.ndarray, y: np.ndarray) -> float:
    """The Fréchet distance of few samples, without a covariance: the product's roots are X·Yᵀ's singular values."""
    a, b = ((z - z.mean(0)) / (len(z) - 1) ** 0.5 for z in (x, y))
    roots = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * roots)


@pytest.mark.slow
def test_rfid_and_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vgg16_weights: Path) -> None:
    files = {"VGG16": vgg16_weights, "INCEPTION": inception_file(tmp_path)}
    for name, file in files.items():
        publish(file, monkeypatch, name)
    judge = evaluator(vgg16=str(vgg16_weights), inception=str(files["INCEPTION"]), replicates=5)
    metrics = judge.measure(Dimmed(), clips(4, frames=1)).metrics
    x = torch.cat([clip for _, clip in clips(4, frames=1)])
    y = torch.from_numpy(as_seen(x.double().numpy()))
    network = judge.networks.inception
    assert network is not None
    features = [network(frames.permute(0, 3, 1, 2)).double().numpy() for frames in (x, y)]
    assert metrics["rfid"].value == pytest.approx(by_samples(*features), rel=1e-4)
    assert (metrics["rfid"].reason or "").startswith("only 4 samples for 2048 features")
    assert metrics["rfid"].low is metrics["rfid"].high is None
    perceptual = judge.networks.lpips
    assert perceptual is not None
    distances = perceptual(*(z.permute(0, 3, 1, 2)[:, None] / 127.5 - 1 for z in (x, y)))
    assert metrics["lpips"].value == pytest.approx(float(distances.mean()), rel=1e-4)
    assert judge.measure(Dimmed(), clips(1, frames=1)).metrics["rfid"].reason == "a covariance needs two samples"


def test_rfvd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = i3d_file(tmp_path)
    publish(file, monkeypatch, "I3D_TORCHSCRIPT")
    judge = evaluator(i3d=str(file), replicates=5)
    metric = judge.measure(Dimmed(), clips(5, frames=10)).metrics["rfvd"]
    x = torch.stack([clip for _, clip in clips(5, frames=10)])
    y = torch.from_numpy(as_seen(x.double().numpy()))
    network = judge.networks.i3d
    assert network is not None
    assert metric.value == pytest.approx(by_samples(*(network(z).double().numpy() for z in (x, y))), rel=1e-4)
    assert (metric.reason or "").startswith("of clips of 10 frames; only 5 samples for 400 features")
    assert metric.low is metric.high is None
    short = judge.measure(Dimmed(), clips(3, frames=9)).metrics["rfvd"]
    assert short.value is None
    assert short.reason == "clips have 9 frames and I3D needs 10; take longer ones: data.clip_frames=16"


def test_weights_that_give_no_numbers_are_refused() -> None:
    class Broken(Dimmed):
        def forward(self, frames: Tensor) -> AutoencoderOutput:
            output = super().forward(frames)
            output.reconstruction[0, 0, 0, 0] = math.nan
            return output

    with pytest.raises(CheckpointError, match="not finite"):
        evaluator().measure(Broken(), clips(2))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data() -> None:
    def peak(count: int) -> tuple[int, int]:
        """Bytes that Python and NumPy held at most, and the most tensors at once."""
        most = 0

        def watched() -> Iterator[tuple[Path, Tensor]]:
            nonlocal most
            for number, clip in enumerate(clips(count)):
                if number % 20 == 19:
                    gc.collect()  # what only waits to be collected is not kept
                    most = max(most, sum(issubclass(type(x), Tensor) for x in gc.get_objects()))
                yield clip

        judge, tokenizer = evaluator(), Dimmed()
        gc.collect()
        tracemalloc.start()
        judge.measure(tokenizer, watched())
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held, most

    peak(250)  # what the tests' checks of shapes keep, of their own
    few, many = peak(50), min(peak(250) for _ in range(3))  # other threads allocate at times: noise only adds
    assert many[0] < few[0] + 33_000  # of 200 clips, each of which has a small part of that
    assert many[1] <= few[1] + 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("clips", 0), ("batch_frames", 0), ("replicates", -1), ("confidence", 1.0), ("seed", -1)],
)
def test_ranges_are_checked(key: str, value: float) -> None:
    with pytest.raises(InvalidValueError, match=f"^{key} must be"):
        evaluator(**{key: value})


@pytest.mark.parametrize("batch_frames", [4, 8, 100])
def test_a_long_clip_is_one_stream_however_it_is_cut(batch_frames: int) -> None:
    def measured(batch: int, frames: int = 17) -> Measurement:
        return evaluator(batch_frames=batch).measure(clip_tokenizer(), clips(3, frames=frames))

    found, whole = measured(batch_frames), measured(100)
    for name in ("psnr", "ssim", "flicker", "bits_per_pixel_fixed"):
        assert found.metrics[name].value == pytest.approx(whole.metrics[name].value, rel=1e-4), name
    assert found.psnr_by_position == pytest.approx(whole.psnr_by_position, rel=1e-4)
    assert len(found.psnr_by_position) == 17
    assert sum(found.psnr_by_position) / 17 == pytest.approx(found.metrics["psnr"].value)


def test_the_bits_of_a_clip_are_those_of_all_its_codes() -> None:
    """Those of its first frame too: 5 times of codes for 17 frames, not 17 / 4."""
    of_clips, of_frames = (
        evaluator().measure(clip_tokenizer(temporal_downsampling=k), clips(2, frames=17)).metrics for k in (4, 1)
    )
    bits = [metrics["bits_per_pixel_fixed"].value for metrics in (of_clips, of_frames)]
    assert bits[1] == pytest.approx(6 / 64)  # 64 codes of 8×8 pixels
    assert bits[0] == pytest.approx(5 / 17 * 6 / 64)


def test_too_few_latents_to_show_the_codes_are_said_beside_the_usage() -> None:
    usage = evaluator().measure(Dimmed(), clips(1)).metrics["usage"]
    assert usage.value is not None
    assert usage.reason == "12 latents that chose evenly would touch 54% of the codes"
