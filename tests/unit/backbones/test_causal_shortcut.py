"""The backbone without norms, for clips: it never sees the future, and begins as the one of pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.clips import clips, stirred
from tests.support.networks import vector_quantizer
from tests.unit.backbones.test_causal import FORMATS, leaks
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import CausalShortcut, Memory, Shortcut
from vqgan.backbones.temporal import temporal_names
from vqgan.errors import InvalidValueError

SIZES: dict[str, Any] = {
    "resolution": 16, "image_channels": 3, "channels": 4, "channel_multipliers": [0, 1, 2, 2], "residual_blocks": 1,
    "decoder_channels": 8, "decoder_blocks": 2, "latent_channels": 8,
}  # fmt: skip
TIME = {"temporal_downsampling": 4, "temporal_resolutions": [8, 2]}


def picture_model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(Shortcut(**SIZES), vector_quantizer())


def clip_model(stir: bool = False, **values: Any) -> Autoencoder:
    """With the same seed, hence the same weights, as what is added draws no random number."""
    torch.manual_seed(0)
    network = Autoencoder(CausalShortcut(**{**SIZES, **TIME, **values}), vector_quantizer())
    if stir:
        stirred(network)
        torch.nn.init.normal_(network.quantizer.codebook)  # type: ignore[arg-type]
    return network


@pytest.mark.parametrize(("k", "sides"), [(1, [8, 2]), (2, [2]), (4, [4]), (8, [8, 4, 2]), (8, [])])
def test_nothing_sees_the_future(k: int, sides: list[int]) -> None:
    """Time is halved beside the folding of pixels too where k is 8."""
    assert leaks(clip_model(True, temporal_downsampling=k, temporal_resolutions=sides).eval()) == []


def test_without_time_it_is_the_model_of_pictures() -> None:
    ours, theirs = clip_model(temporal_downsampling=1, temporal_resolutions=[]), picture_model()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    a, b = ours(clips(5)), theirs(clips(5))
    assert torch.equal(a.reconstruction, b.reconstruction)


@FORMATS
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_it_begins_as_the_model_of_pictures(k: int, layout: torch.memory_format) -> None:
    ours, theirs = clip_model(temporal_downsampling=k).eval(), picture_model().eval()
    ours.to(memory_format=layout), theirs.to(memory_format=layout)
    assert ours.state_dict().keys() - temporal_names(ours) == theirs.state_dict().keys()
    x = clips(1 + 2 * k, batch=2)
    a, b = ours(x[:, :1]), theirs(x[:, :1])
    assert torch.equal(a.reconstruction, b.reconstruction)
    assert torch.equal(a.indices, b.indices)
    torch.testing.assert_close(ours.encoder(x), theirs.encoder(x)[:, ::k])
    latents = torch.randn(1, 3, 8, 2, 2)
    found, pictures = ours.decoder(latents), theirs.decoder(latents)
    assert found.shape[1] == 1 + 2 * k
    for t in range(1 + 2 * k):
        torch.testing.assert_close(found[:, t], pictures[:, -(-t // k)])


def test_a_stream_in_parts_is_the_whole() -> None:
    network = clip_model(True, temporal_downsampling=8).double().eval()
    x = clips(33).double()
    memory, told = Memory(), Memory()
    codes = torch.cat([network.encoder(part, memory) for part in x.split([9, 8, 16], 1)], 1)
    torch.testing.assert_close(codes, network.encoder(x))
    frames = torch.cat([network.decoder(part, told) for part in codes.split([1, 1, 3], 1)], 1)
    torch.testing.assert_close(frames, network.decoder(codes))
    assert all(kept.shape[1] <= 2 for kept in [*memory.last.values(), *told.last.values()])


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_reach_every_parameter(recompute: bool) -> None:
    network = clip_model(True)
    for parameter in network.parameters():  # blocks begin as nothing too
        parameter.data += 0.1 * torch.randn_like(parameter)
    assert not recompute or network.recompute_activations()
    output = network(clips(9, batch=2))
    (output.reconstruction.square().mean() + output.quantization_loss).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"temporal_downsampling": 16}, "temporal_downsampling"),
        ({"temporal_resolutions": [16]}, "temporal_resolutions"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], key: str) -> None:
    """Nothing is computed at 16 pixels."""
    with pytest.raises(InvalidValueError, match=key):
        CausalShortcut(**{**SIZES, **TIME, **values})
