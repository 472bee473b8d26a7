"""Where memory runs out, finished tokenizers go on with less at once, and nothing comes out otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integration.tokenizer.test_export import noise, tokenizer_of
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Memory
from vqgan.errors import StorageError
from vqgan.evaluation.evaluator import Evaluator
from vqgan.evaluation.networks import WeightFiles
from vqgan.frames import to_clips
from vqgan.tokenizer.inference import InferenceSettings, decode_batch, encode_batch, parts_for
from vqgan.tokenizer.tokenizer import Tokenizer

CAUSAL = ("backbone=causal_tiny", "backbone.channel_multipliers=[1,1]", "backbone.temporal_resolutions=[8]",
          "backbone.temporal_downsampling=2", "model=vqmodel")  # fmt: skip
GOES_ON = pytest.mark.filterwarnings("ignore:Memory ran out")


class Full:
    """Lets a network take so many frames or times at once, and counts how often more were tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, frames: int, times: int) -> None:
        self.refused, self.frames, self.times = 0, frames, times
        quantize, reconstruct = Autoencoder.quantize, Autoencoder.reconstruct

        def encode(network: Any, x: Tensor, memory: Memory | None = None) -> Any:
            if memory is not None and len(x) * x.shape[1] > self.frames:
                memory.last = {torch.nn.Identity(): x}  # what a pass that breaks off may have left
            self.check(len(x) * x.shape[1], self.frames)
            return quantize(network, x, memory)

        def decode(network: Any, x: Tensor, memory: Memory | None = None) -> Any:
            self.check(len(x) * x.shape[1], self.times)
            return reconstruct(network, x, memory)

        monkeypatch.setattr(Autoencoder, "quantize", encode)
        monkeypatch.setattr(Autoencoder, "reconstruct", decode)

    def check(self, taken: int, most: int) -> None:
        if taken > most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def there_and_back(tokenizer: Tokenizer, clip: Tensor, work: InferenceSettings) -> tuple[Tensor, Tensor]:
    parts, memory, back = parts_for(tokenizer, work.batch_frames), Memory(), Memory()
    cuts = [clip[first : first + parts.length(first)] for first in parts.firsts(len(clip))]
    codes = [encode_batch(tokenizer, part, work, memory) for part in cuts]
    return torch.cat(codes), torch.cat([decode_batch(tokenizer, part, work, back) for part in codes])


@GOES_ON
@pytest.mark.parametrize("overrides", [("model=vqmodel",), CAUSAL], ids=["pictures", "clips"])
@torch.no_grad()
def test_a_video_has_the_same_codes_and_frames(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_of(tmp_path, *overrides)
    clip = to_clips(noise(1, 21, 3, 16, 16))[0]
    expected = there_and_back(tokenizer, clip, InferenceSettings(8, "fp32"))
    full = Full(monkeypatch, frames=5, times=3)
    found = there_and_back(tokenizer, clip, InferenceSettings(8, "fp32"))
    assert torch.equal(expected[0], found[0])
    assert int((expected[1].int() - found[1].int()).abs().max()) <= 1  # the last bit of a level, by rounding
    assert 0 < full.refused <= 4, "what has not fitted once is not tried again"


@torch.no_grad()
def test_it_is_said_once_and_one_frame_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, clip = tokenizer_of(tmp_path, "model=vqmodel"), to_clips(noise(1, 8, 3, 16, 16))[0]
    work = InferenceSettings(8, "fp32")
    full = Full(monkeypatch, frames=2, times=8)
    with pytest.warns(UserWarning, match="Memory ran out") as said:
        there_and_back(tokenizer, clip, work)
    assert len(said) == 1
    full.frames = 0
    with pytest.raises(StorageError, match="Out of memory"):
        encode_batch(tokenizer, clip, work, Memory())


@GOES_ON
@pytest.mark.parametrize(("clips", "frames"), [(1, 8), (5, 3)], ids=["in time", "in number"])
def test_an_evaluation_finds_the_same(clips: int, frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(tmp_path, "model=vqmodel")
    given = [(Path(f"{number}.mp4"), clip) for number, clip in enumerate(to_clips(noise(clips, frames, 3, 16, 16)))]
    weights = WeightFiles(vgg16=None, inception=None, i3d=None)
    values: dict[str, Any] = {"clips": None, "device": "cpu", "precision": "fp32", "replicates": 0, "confidence": 0.95,
                              "seed": 0, "download": False, "weights": weights}  # fmt: skip
    expected = Evaluator(batch_frames=12, **values).measure(tokenizer, given)
    full = Full(monkeypatch, frames=4, times=12)
    found = Evaluator(batch_frames=12, **values).measure(tokenizer, given)
    assert full.refused
    for name, metric in expected.metrics.items():
        assert metric.value is None or found.metrics[name].value == pytest.approx(metric.value, rel=1e-6), name
    full.frames = 0
    with pytest.raises(StorageError, match="Out of memory"):
        Evaluator(batch_frames=12, **values).measure(tokenizer, given)
