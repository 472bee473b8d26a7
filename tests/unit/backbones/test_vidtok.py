"""VidTok's network: what depends on what, its parts by closed formulas; the whole has the original's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import VidTok
from vqgan.backbones.space_time import CausalConv, DoubleTime, HalveTime, Time
from vqgan.errors import ConfigError
from vqgan.quantizers import FiniteScalarQuantizer

SIZES: dict[str, Any] = {
    "resolution": 8, "image_channels": 3, "channels": 4, "channel_multipliers": [1, 2, 2], "residual_blocks": 1,
    "halve_time_after": [0, 1], "double_time_after": [1, 2], "interpolation": "trilinear", "latent_channels": 3,
}  # fmt: skip


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    """Without parts that begin as nothing, which would hide what depends on what."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return network


@torch.no_grad()
def test_codes_look_back_only() -> None:
    encoder = randomized(VidTok(**SIZES).encoder())
    frames = torch.randn(1, 9, 3, 8, 8)
    other = frames.clone()
    other[:, 5:] = torch.randn(1, 4, 3, 8, 8)  # of 1 + 4 + 4 frames the last four
    a, b = encoder(frames), encoder(other)
    assert a.shape == (1, 3, 3, 2, 2)
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert not torch.allclose(a[:, 2], b[:, 2])
    torch.testing.assert_close(encoder(frames[:, :1]), a[:, :1], msg="a picture is a clip of one frame")


@torch.no_grad()
def test_frames_that_have_no_whole_code_stand_at_the_beginning() -> None:
    encoder = randomized(VidTok(**SIZES).encoder())
    frames = torch.randn(1, 6, 3, 8, 8)
    filled = torch.cat([frames[:, :1], frames[:, :1], frames], 1)
    torch.testing.assert_close(encoder(frames), encoder(filled))


@torch.no_grad()
def test_parts_along_time_by_their_formulas() -> None:
    x = torch.randn(2, 4, 6, 3, 3)
    before = [x[:, :, max(0, t - 1)] for t in range(6)]
    halve = randomized(HalveTime(4))
    alpha = torch.sigmoid(halve.mix_factor)
    means = torch.stack([(before[t] + x[:, :, t] + x[:, :, t + 1]) / 3 for t in (0, 2, 4)], 2)
    torch.testing.assert_close(halve(x), alpha * means + (1 - alpha) * halve.conv(x))
    double = randomized(DoubleTime(4, "trilinear", 2))
    alpha = torch.sigmoid(double.mix_factor)
    frames = []
    for first, last in ((0, 1), (2, 5)):  # the first two by themselves
        for t in range(first, last + 1):
            former, latter = x[:, :, max(first, t - 1)], x[:, :, min(last, t + 1)]
            frames += [0.75 * x[:, :, t] + 0.25 * former, 0.75 * x[:, :, t] + 0.25 * latter]
    smooth = torch.stack(frames, 2)
    torch.testing.assert_close(double(x), alpha * smooth + (1 - alpha) * double.conv(smooth))
    along = randomized(Time(4, 4))
    expected = torch.stack([
        sum(torch.einsum("oc,nchw->nohw", along.conv.weight[:, :, j], x[:, :, max(0, t - 2 + j)]) for j in range(3))
        for t in range(6)
    ], 2)  # fmt: skip
    torch.testing.assert_close(along(x), expected + along.conv.bias[:, None, None, None])


def test_a_strided_convolution_begins_one_frame_earlier() -> None:
    conv, x = CausalConv(4, 5, 3, stride=2), torch.randn(1, 4, 4, 3, 3)
    every = CausalConv(4, 5, 3)
    every.load_state_dict(conv.state_dict())
    torch.testing.assert_close(conv(x), every(x)[:, :, 1::2])


@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
def test_gradients_reach_every_parameter(interpolation: str) -> None:
    quantizer = FiniteScalarQuantizer([5, 5, 5], symmetric=False, gain=1.0)
    autoencoder = Autoencoder(VidTok(**SIZES | {"interpolation": interpolation}), quantizer)
    randomized(autoencoder)
    autoencoder.recompute_activations()
    frames = torch.randn(2, 5, 3, 8, 8)
    reconstruction = autoencoder.decoder(autoencoder.encoder(frames))
    assert reconstruction.shape == frames.shape
    reconstruction.square().mean().backward()
    for name, parameter in autoencoder.named_parameters():
        if "quant_conv" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("key", "value"),
    [("channels", 0), ("channel_multipliers", [1] * 13), ("channel_multipliers", []), ("residual_blocks", 0),
     ("resolution", 6), ("halve_time_after", [0, 0]), ("halve_time_after", [1, 2]), ("double_time_after", [0, 1]),
     ("double_time_after", [1]), ("double_time_after", [1, 1]), ("latent_channels", 0)],
)  # fmt: skip
def test_sizes_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        VidTok(**SIZES | {key: value})
