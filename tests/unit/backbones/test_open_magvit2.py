"""Open-MAGVIT2's network: its own parts by closed formulas; the whole is compared with the original's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import OpenMAGVIT2
from vqgan.backbones.open_magvit2 import AdaptiveNorm, DepthToSpace
from vqgan.errors import ConfigError
from vqgan.quantizers import LookupFreeQuantizer

SIZES: dict[str, Any] = {
    "resolution": 16, "image_channels": 3, "channels": 4, "channel_multipliers": [1, 2], "residual_blocks": 2,
    "norm_groups": 2, "latent_channels": 5,
}  # fmt: skip


def test_depth_to_space_has_the_offset_before_the_channels() -> None:
    layer, x = DepthToSpace(3), torch.randn(2, 3, 4, 5)
    deep, out = layer.conv1(x), layer(x)
    for c in range(3):
        for i in range(2):
            for j in range(2):
                assert torch.equal(out[:, c, i::2, j::2], deep[:, (2 * i + j) * 3 + c])


def test_scales_and_shifts_are_of_the_whole_frame() -> None:
    norm, x, latents = AdaptiveNorm(5, 4, OpenMAGVIT2(**SIZES)), torch.randn(2, 4, 6, 6), torch.randn(2, 5, 3, 4)
    flat = latents.flatten(2)
    mean = flat.mean(2)
    deviation = ((flat - mean[..., None]).square().sum(2) / 11 + 1e-6).sqrt()
    groups = x.view(2, 2, -1)
    centred = groups - groups.mean(2, keepdim=True)
    normalised = (centred / (centred.square().mean(2, keepdim=True) + 1e-6).sqrt()).view_as(x)
    gamma, beta = norm.gamma(deviation), norm.beta(mean)
    torch.testing.assert_close(norm(x, latents), gamma[..., None, None] * normalised + beta[..., None, None])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [2, 16])
def test_gradients_reach_every_parameter_also_of_a_frame_of_one_code(side: int) -> None:
    quantizer = LookupFreeQuantizer(
        32, depth=1, commitment_weight=0.25, entropy_weight=0.1, diversity_weight=1.0, temperature=1.0,
        entropy_boost=1.0, entropy_boost_steps=1,
    )  # fmt: skip
    autoencoder = Autoencoder(OpenMAGVIT2(**SIZES), quantizer)
    output = autoencoder(torch.randn(2, 3, side, side))
    assert output.reconstruction.shape == (2, 3, side, side)
    (output.reconstruction.square().mean() + output.quantization_loss).backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert side == 2 or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("key", "value"),
    [("channels", 3), ("channel_multipliers", [1] * 13), ("channel_multipliers", []), ("residual_blocks", 0),
     ("resolution", 15), ("norm_groups", 0), ("latent_channels", 0), ("image_channels", 0)],
)  # fmt: skip
def test_sizes_out_of_range_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        OpenMAGVIT2(**SIZES | {key: value})
