"""The backbone without norms: shortcuts as closed formulas, sizes, gradients, an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vqgan
from vqgan.backbones import Shortcut
from vqgan.backbones.shortcut import Double, Halve, other_width
from vqgan.errors import ConfigError
from vqgan.quantizers import VectorQuantizer
from vqgan.tokenizer.folder import description_of, write
from vqgan.tokenizer.tokenizer import Tokenizer

SIZES: dict[str, Any] = {
    "resolution": 32, "image_channels": 3, "channels": 4, "channel_multipliers": [0, 2, 4], "residual_blocks": 1,
    "decoder_channels": 8, "decoder_blocks": 2, "latent_channels": 4,
}  # fmt: skip


def silent(module: nn.Module) -> None:
    """All its convolutions give nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def test_without_its_convolutions_a_halving_averages_squares_of_channels() -> None:
    halve = Halve(4, 8)
    silent(halve)
    x = torch.randn(2, 4, 6, 8)
    expected = torch.stack(  # channels 2·c and 2·c + 1: the upper two and the lower two values of each square
        [x[:, c, row::2].unflatten(2, (4, 2)).mean(3) for c in range(4) for row in (0, 1)], 1
    )
    torch.testing.assert_close(halve(x), expected)


def test_without_its_convolutions_a_doubling_repeats() -> None:
    double = Double(8, 8)
    silent(double)
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(double(x), F.interpolate(x, scale_factor=2, mode="nearest"))


@pytest.mark.parametrize(("of", "to"), [(8, 8), (8, 2), (4, 12)])
def test_widths_change_by_means_and_copies(of: int, to: int) -> None:
    x = torch.randn(1, of, 2, 2)
    expected = x.unflatten(1, (to, of // to)).mean(2) if to < of else x.repeat_interleave(to // of, 1)
    torch.testing.assert_close(other_width(x, to), expected)


def test_the_four_pixels_of_a_position_begin_alike() -> None:
    decoder = Shortcut(**SIZES).decoder()
    picture = decoder(torch.randn(1, 1, 4, 4, 4))[0, 0]
    assert picture.std() > 0
    for row, column in ((0, 1), (1, 0), (1, 1)):
        assert torch.equal(picture[:, ::2, ::2], picture[:, row::2, column::2])


@pytest.mark.parametrize(("multipliers", "fold"), [([0, 2, 4, 4], 2), ([0, 0, 1, 2], 4), ([1, 2, 2, 4], 1)])
def test_sides_follow_from_the_multipliers_and_everything_learns(multipliers: list[int], fold: int) -> None:
    backbone = Shortcut(**SIZES | {"channel_multipliers": multipliers})
    encoder, decoder = backbone.encoder(), backbone.decoder()
    assert backbone.downsampling == (1, 8, 8)
    assert encoder.conv_in.weight.shape[1] == decoder.conv_out.weight.shape[0] == 3 * fold**2  # type: ignore[union-attr, index]
    for module in (encoder, decoder):
        for parameter in module.parameters():  # what begins as nothing lets no gradient through to what is before it
            nn.init.normal_(parameter, std=0.1)
    latents = encoder(torch.randn(2, 3, 3, 16, 24))
    frames: Tensor = decoder(latents)
    assert (latents.shape, frames.shape) == ((2, 3, 4, 2, 3), (2, 3, 3, 16, 24))
    frames.square().mean().backward()
    parameters = [*encoder.named_parameters(), *decoder.named_parameters()]
    assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []


def test_recomputed_activations_give_the_same_gradients() -> None:
    decoder = Shortcut(**SIZES).decoder()
    latents = torch.randn(1, 1, 4, 4, 4)
    decoder(latents).square().sum().backward()
    kept = [p.grad.clone() for p in decoder.parameters() if p.grad is not None]
    decoder.zero_grad()
    decoder.recompute = True  # type: ignore[assignment]
    decoder(latents).square().sum().backward()
    for before, parameter in zip(kept, decoder.parameters()):
        torch.testing.assert_close(parameter.grad, before)


def test_an_export_gives_it_back(tmp_path: Path) -> None:
    values = {"codebook_size": 16, "latent_dim": 4, "commitment_weight": 0.25, "codebook_weight": 1.0}
    description = description_of({"class": "Shortcut", **SIZES}, {"class": "VectorQuantizer", **values})
    tokenizer = Tokenizer(Shortcut(**SIZES), VectorQuantizer(16, 4, 0.25, 1.0), description).eval()
    write(tmp_path / "out", description, tokenizer.state_dict(), None, "")
    frames = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(vqgan.load(tmp_path / "out").encode(frames), tokenizer.encode(frames))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"channel_multipliers": [0, 2, 3]}, "channel_multipliers"),  # 32 values of a square are not 12 means
        ({"channel_multipliers": [0, 2, 0]}, "channel_multipliers"),
        ({"channel_multipliers": [0, 0]}, "channel_multipliers"),
        ({"decoder_channels": 0}, "decoder_channels"),
        ({"decoder_blocks": 0}, "decoder_blocks"),
        ({"latent_channels": 3}, "latent_channels"),
        ({"resolution": 30}, "resolution"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Shortcut(**SIZES | values)
