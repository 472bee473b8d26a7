"""The backbone of clips: it never sees the future, and begins as the model of pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.support.clips import CAUSAL, clip_tokenizer, clips, sees_the_future, stirred
from tests.support.networks import vector_quantizer
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Causal, Convolutional
from vqgan.backbones.temporal import TemporalBlock, TemporalConv, temporal_names
from vqgan.config.build import build, conf_dir
from vqgan.errors import InvalidValueError

PICTURES = {key: value for key, value in CAUSAL.items() if not key.startswith("temporal")}


def picture_model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(Convolutional(**PICTURES), vector_quantizer())


def clip_model(**values: Any) -> Autoencoder:
    """With the same seed, hence the same weights, as what is added draws no random number."""
    torch.manual_seed(0)
    return Autoencoder(Causal(**{**CAUSAL, **values}), vector_quantizer())


def leaks(network: Autoencoder, times: int = 2) -> list[str]:
    """Which parts of a network see the future, by their names."""
    k = network.downsampling.time
    x, latents = clips(network.downsampling.frames(times + 1)), torch.randn(1, times + 1, 8, 2, 2)
    found = []
    for j in range(times):
        if sees_the_future(network.encoder, x, k * j, j + 1):
            found.append("encoder")
        if sees_the_future(network.decoder, latents, j, k * j + 1):
            found.append("decoder")
        if sees_the_future(lambda frames: network(frames).reconstruction, x, k * j, k * j + 1):
            found.append("whole")
    return found


@pytest.mark.parametrize(("k", "sides"), [(1, [8, 2]), (2, [8, 2]), (4, [8]), (8, [4, 2]), (4, [])])
def test_nothing_sees_the_future(k: int, sides: list[int]) -> None:
    assert leaks(clip_tokenizer(temporal_downsampling=k, temporal_resolutions=sides).eval()) == []


class NormOverTime(nn.GroupNorm):
    """As most video tokenizers have it: one mean for all frames."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)[None]).squeeze(0).transpose(0, 1)


def test_a_norm_over_all_frames_would_be_found() -> None:
    network = clip_tokenizer().eval()
    for module in [m for m in network.encoder.modules() if isinstance(m, TemporalBlock)]:
        module.norm = NormOverTime(4, module.norm.num_channels)
    assert {"encoder", "whole"} <= {*leaks(network)}


def test_padding_on_both_sides_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def symmetric(self: TemporalConv, x: Tensor, memory: object) -> list[Tensor]:
        seen = torch.cat([x[:, :1], x, x[:, -1:]], 1)
        beyond = self.stride * ((seen.shape[1] - 3) // self.stride) + 1
        return [seen[:, tap : tap + beyond : self.stride] for tap in range(3)]

    network = clip_tokenizer().eval()
    monkeypatch.setattr(TemporalConv, "taps", symmetric)
    assert {"encoder", "decoder", "whole"} <= {*leaks(network)}


def test_without_time_it_is_the_model_of_pictures() -> None:
    ours, theirs = clip_model(temporal_downsampling=1, temporal_resolutions=[]), picture_model()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()))
    x = clips(5, batch=2)
    a, b = ours(x), theirs(x)
    assert torch.equal(a.reconstruction, b.reconstruction)
    assert torch.equal(a.indices, b.indices)
    for output in (a, b):
        (output.reconstruction.square().mean() + output.quantization_loss).backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters()))  # type: ignore[arg-type]


FORMATS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])


@FORMATS
@pytest.mark.parametrize("times", [1, 2, 5])
def test_codes_for_each_frame_begin_as_those_of_pictures(times: int, layout: torch.memory_format) -> None:
    ours, theirs, x = clip_model(temporal_downsampling=1).eval(), picture_model().eval(), clips(times, batch=2)
    ours.to(memory_format=layout), theirs.to(memory_format=layout)
    assert temporal_names(ours)
    a, b = ours(x), theirs(x)
    assert torch.equal(a.reconstruction, b.reconstruction)
    assert torch.equal(a.indices, b.indices)


@FORMATS
@pytest.mark.parametrize("k", [2, 4, 8])
def test_codes_for_several_frames_begin_as_those_of_pictures(k: int, layout: torch.memory_format) -> None:
    ours, theirs, x = clip_model(temporal_downsampling=k).eval(), picture_model().eval(), clips(1 + 2 * k, batch=2)
    ours.to(memory_format=layout), theirs.to(memory_format=layout)
    picture = ours(x[:, :1]), theirs(x[:, :1])
    assert torch.equal(picture[0].reconstruction, picture[1].reconstruction)
    assert torch.equal(picture[0].indices, picture[1].indices)
    a, b = ours.encoder(x), theirs.encoder(x)
    torch.testing.assert_close(a, b[:, ::k])
    latents = torch.randn(1, 3, 8, 2, 2)
    a, b = ours.decoder(latents), theirs.decoder(latents)
    torch.testing.assert_close(a[:, ::k], b)
    for j in (1, 2):
        for t in range(k * (j - 1) + 1, k * j):
            assert torch.equal(a[:, t], a[:, k * j])


def test_the_first_frame_is_a_picture() -> None:
    network = clip_tokenizer().eval()
    x = clips(5)
    torch.testing.assert_close(network.encoder(x)[:, :1], network.encoder(x[:, :1]))
    assert torch.equal(network.encode(x[:, 0]), network.encode(x[:, :1])[:, 0])
    assert torch.equal(network.encode(x)[:, 0], network.encode(x[:, 0]))


def prefixed(encoder: nn.Module) -> tuple[Tensor, Tensor]:
    """Latents of a clip, and of the same clip whose first frame stood still for k frames more."""
    x = clips(9).double()
    return encoder(x), encoder(torch.cat([x[:, :1]] * 4 + [x], 1))


def test_a_still_video_has_the_same_codes_all_along_and_a_still_beginning_moves_no_others() -> None:
    encoder = clip_tokenizer().double().eval().encoder
    still = encoder(clips(1).double().expand(-1, 9, -1, -1, -1))
    torch.testing.assert_close(still, still[:, :1].expand_as(still))
    latents, later = prefixed(encoder)
    torch.testing.assert_close(later[:, 1:], latents)
    torch.testing.assert_close(later[:, 0], latents[:, 0])


def test_zeros_before_the_beginning_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros_before(self: TemporalConv, x: Tensor, memory: object) -> list[Tensor]:
        seen = torch.cat([torch.zeros_like(x[:, :1])] * 2 + [x], 1)
        beyond = self.stride * ((seen.shape[1] - 3) // self.stride) + 1
        return [seen[:, tap : tap + beyond : self.stride] for tap in range(3)]

    encoder = clip_tokenizer().double().eval().encoder
    monkeypatch.setattr(TemporalConv, "taps", zeros_before)
    latents, later = prefixed(encoder)
    assert not torch.allclose(later[:, 1:], latents, rtol=0.01)


@pytest.mark.parametrize("times", [1, 5])
def test_gradients_reach_every_parameter_from_clips_and_from_pictures(times: int) -> None:
    network = clip_tokenizer()
    output = network(clips(times, batch=2))
    (output.reconstruction.square().mean() + output.quantization_loss).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    if times > 1:
        assert [name for name, p in network.named_parameters() if not p.grad.any()] == []  # type: ignore[union-attr]


@pytest.mark.parametrize("k", [1, 4])
def test_the_memory_format_of_frames_stays(k: int) -> None:
    network = clip_tokenizer(temporal_downsampling=k).to(memory_format=torch.channels_last)
    strides = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, given: strides.append(given[0].is_contiguous(memory_format=torch.channels_last))
            )
    frames = clips(9, batch=2).flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (2, 9))
    network.decoder(network.encoder(frames))
    assert len(strides) > 20
    assert all(strides)


def test_recomputed_activations_give_the_same_gradients() -> None:
    networks = [clip_tokenizer(), clip_tokenizer()]
    assert networks[1].recompute_activations()
    for network in networks:
        network(clips(5)).reconstruction.square().mean().backward()
    for a, b in zip(*(network.parameters() for network in networks)):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.slow
def test_a_moving_square_is_learnt() -> None:
    torch.manual_seed(0)
    network = clip_tokenizer(stir=False)
    x = -torch.ones(2, 5, 3, 16, 16)
    for n in range(2):
        for t in range(5):
            x[n, t, :, 6 * n : 6 * n + 4, 2 * t : 2 * t + 4] = 1
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

    def distance() -> Tensor:
        return (network.decoder(network.encoder(x)) - x).square().mean()

    for _ in range(150):
        optimizer.zero_grad()
        distance().backward()
        optimizer.step()
    with torch.no_grad():
        still = torch.cat([x[:, :1], x[:, 4:].expand(-1, 4, -1, -1, -1)], 1)  # what its start can do at best
        assert float(distance()) < 0.6 * float((still - x).square().mean())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"temporal_downsampling": 3}, "temporal_downsampling"),
        ({"temporal_downsampling": 16}, "temporal_downsampling"),
        ({"temporal_downsampling": 4, "channel_multipliers": [1, 1]}, "temporal_downsampling"),
        ({"temporal_resolutions": [7]}, "temporal_resolutions"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidValueError, match=key):
        Causal(**{**CAUSAL, **values})


def test_stirring_stirs() -> None:
    network = clip_model()
    before = network(clips(5)).reconstruction
    stirred(network)
    assert not torch.equal(network(clips(5)).reconstruction, before)


def multiplications(choice: str, frames: int) -> int:
    """Of the encoder and the decoder of a choice of `conf/backbone`, for one clip."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        backbone = build(compose("train", [f"backbone={choice}"]).backbone, "backbone")
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        side = backbone.resolution
        latents = backbone.encoder()(torch.empty(1, frames, 3, side, side))
        backbone.decoder()(latents)
    return int(counted.get_total_flops()) // 2


@pytest.mark.parametrize(
    ("ours", "theirs", "most"),
    [
        ("causal_tiny", "tiny", 0.76),
        ("causal_small", "small", 0.56),
        ("remembering_tiny", "tiny", 1.1),
        pytest.param("causal_f8", "f8", 0.79, marks=pytest.mark.slow),
        pytest.param("causal_f16", "f16", 0.95, marks=pytest.mark.slow),
    ],
)
def test_a_clip_costs_no_more_than_its_frames(ours: str, theirs: str, most: float) -> None:
    """Counted; less in the deeper levels, where there are fewer times, more for the blocks along time."""
    assert multiplications(ours, 17) / multiplications(theirs, 17) < most
