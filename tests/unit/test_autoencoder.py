"""From frames to codes and back."""

from __future__ import annotations

import copy
from collections.abc import Callable

import jaxtyping
import pytest
import torch

from tests.support.networks import autoencoder, ema_quantizer, frames, vector_quantizer
from vqgan.errors import InvalidValueError
from vqgan.quantizers import Quantizer


@pytest.mark.parametrize("make", [vector_quantizer, ema_quantizer])
def test_shapes_and_ranges(make: Callable[[], Quantizer]) -> None:
    network = autoencoder(make())
    x = frames()
    output = network(x)
    assert output.reconstruction.shape == x.shape
    assert output.indices.shape == (2, 8, 8)
    assert 0 <= int(output.indices.min()) <= int(output.indices.max()) < 16
    assert output.quantization_loss.shape == ()
    assert 1 <= float(output.perplexity) <= 16
    assert network.encoder(x[:, None]).shape == (2, 1, 8, 8, 8)


def test_encode_and_decode_are_the_forward_pass() -> None:
    network = autoencoder().eval()
    x = frames()
    output = network(x)
    indices = network.encode(x)
    assert torch.equal(indices, output.indices)
    torch.testing.assert_close(network.decode(indices), output.reconstruction, rtol=1e-5, atol=1e-6)


def test_clips_are_their_frames() -> None:
    network = autoencoder().eval()
    clips = frames(6).unflatten(0, (2, 3))
    output = network(clips)
    assert output.reconstruction.shape == clips.shape
    assert output.indices.shape == (2, 3, 8, 8)
    assert torch.equal(network.encode(clips), network.encode(clips.flatten(0, 1)).unflatten(0, (2, 3)))
    torch.testing.assert_close(network.decode(output.indices), output.reconstruction, rtol=1e-5, atol=1e-6)


def test_other_sizes_run_too() -> None:
    network = autoencoder()
    assert network(frames(side=32)).indices.shape == (2, 16, 16)


def test_gradients_reach_every_parameter() -> None:
    network = autoencoder()
    output = network(frames())
    (output.reconstruction.square().mean() + output.quantization_loss).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_a_copy_of_a_compiled_autoencoder_has_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the average of the weights is one."""
    monkeypatch.setattr(torch, "compile", lambda function: lambda *values: function(*values))
    network, x = autoencoder(), frames()
    network.decoder.compile()
    with torch.no_grad():
        copied, before = copy.deepcopy(network), network(x).reconstruction
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(copied(x).reconstruction, before)
    assert network.decoder.state_dict().keys() == copied.decoder.state_dict().keys()


def test_the_ema_codebook_is_no_parameter_and_is_saved() -> None:
    network = autoencoder(ema_quantizer())
    assert not any("codebook" in name for name, _ in network.named_parameters())
    assert "quantizer.codebook" in network.state_dict()


def test_half_precision_networks_keep_the_quantizer_exact() -> None:
    network = autoencoder()
    with torch.autocast("cpu", torch.bfloat16):
        quantized = network.quantize(frames()[:, None])
        output = network(frames())
    assert quantized.latents.dtype == torch.float32
    assert output.reconstruction.dtype == torch.float32
    codes = network.quantizer.lookup(quantized.indices)
    torch.testing.assert_close(quantized.latents, codes, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [("channels", 6), ("channels", 0), ("channel_multipliers", []), ("channel_multipliers", [1, 0]), ("dropout", 1.0),
     ("residual_blocks", 0), ("latent_channels", 0), ("resolution", 15), ("image_channels", 0),
     ("norm_groups", 0)],
)  # fmt: skip
def test_sizes_out_of_range_are_named(key: str, value: object) -> None:
    with pytest.raises(InvalidValueError, match=key):
        autoencoder(**{key: value})


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 16, 16),
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(1, 3, 15, 16),
        torch.zeros(2, 1, 16, 16),
    ],
    ids=["one frame", "uint8", "odd side", "grey"],
)
def test_frames_that_do_not_fit_are_described(x: torch.Tensor) -> None:
    """Here partly by the tests' shape checks, which come before the method's own."""
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match=r"Frames must be|ype-check"):
        autoencoder().encode(x)


def test_frames_that_do_not_fit_are_described_as_they_were_given() -> None:
    with pytest.raises(ValueError, match=r"must be \(n, 3, height.*but are \(2, 1, 16, 16\) of torch.float32"):
        autoencoder().encode(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"but are \(1, 3, 15, 16\) of"):
        autoencoder()(torch.zeros(1, 3, 15, 16))


def test_indices_out_of_range_are_described() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 16\)"):
        autoencoder().decode(torch.full((1, 8, 8), 16))
