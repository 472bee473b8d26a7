"""The discriminator without aliases, in which no sample sees another."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqgan.discriminators import BlurPatchGAN
from vqgan.discriminators.blur import Blur
from vqgan.errors import InvalidValueError


def critic(layers: int = 2) -> BlurPatchGAN:
    torch.manual_seed(0)
    return BlurPatchGAN(3, 8, layers, 4)


def frames(count: int = 3, side: int = 16) -> Tensor:
    return torch.rand(count, 2, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_blur_is_the_sum_by_hand() -> None:
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(2))
    padded, line = F.pad(x, (1, 1, 1, 1)), (1, 3, 3, 1)
    expected = torch.zeros(2, 3, 3, 4)
    for row in range(3):
        for column in range(4):
            for i, a in enumerate(line):
                for j, b in enumerate(line):
                    expected[:, :, row, column] += a * b * padded[:, :, 2 * row + i, 2 * column + j] / 64
    torch.testing.assert_close(Blur()(x), expected)


def test_the_blur_keeps_what_is_even_and_drops_what_would_alias() -> None:
    even, chequered = torch.ones(1, 1, 8, 8), (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    assert torch.equal(Blur()(even)[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
    assert float(chequered[::2, ::2].mean()) == 1.0, "what leaving out positions alone would make of it"
    assert float(Blur()(chequered[None, None])[..., 1:-1, 1:-1].abs().max()) == 0.0


def test_it_is_the_layers_one_after_the_other() -> None:
    network, x = critic(), frames()
    state = network.state_dict()
    h = F.leaky_relu(F.conv2d(x.flatten(0, 1), state["main.0.weight"], state["main.0.bias"], padding=2), 0.1)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for i in (2, 6):
        h = F.conv2d(h, state[f"main.{i}.weight"], state[f"main.{i}.bias"], padding=1)
        blur = torch.einsum("i,j->ij", line, line).expand(h.shape[1], 1, 4, 4)
        h = F.conv2d(h, blur, stride=2, padding=1, groups=h.shape[1])
        groups = h.unflatten(1, (4, -1))
        mean = groups.mean((2, 3, 4), keepdim=True)
        variance = groups.var((2, 3, 4), keepdim=True, unbiased=False)
        h = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        h = h * state[f"main.{i + 2}.weight"][:, None, None] + state[f"main.{i + 2}.bias"][:, None, None]
        h = F.leaky_relu(h, 0.1)
    h = F.leaky_relu(F.conv2d(h, state["main.10.weight"], state["main.10.bias"]), 0.1)
    expected = F.conv2d(h, state["main.12.weight"], state["main.12.bias"], padding=2)
    torch.testing.assert_close(network(x), expected.unflatten(0, x.shape[:2]), rtol=1e-4, atol=1e-5)
    assert expected.shape == (6, 1, 4, 4)


def test_no_sample_sees_another() -> None:
    network, x = critic(), frames()
    other = x.clone()
    other[1:] = -other[1:]
    assert torch.equal(network(other)[0], network(x)[0])
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0].square().sum(), x)
    assert float(gradient[0].abs().max()) > 0
    assert float(gradient[1:].abs().max()) == 0


@pytest.mark.parametrize(("layers", "widths"), [(1, [8, 8]), (5, [8, 8, 16, 32, 64, 64])])
def test_widths_double_up_to_eight_times(layers: int, widths: list[int]) -> None:
    convolutions = [m.out_channels for m in critic(layers).main if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [*widths, widths[-1], 1]


def test_it_is_saved_without_what_is_constant() -> None:
    network, again = critic(), BlurPatchGAN(3, 8, 2, 4)
    assert not any(name.endswith("kernel") for name in network.state_dict())
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(frames()), network(frames()))


def test_ranges() -> None:
    with pytest.raises(InvalidValueError, match="channels must be a positive multiple of norm_groups=32, but is 48"):
        BlurPatchGAN(3, 48, 2, 32)
    with pytest.raises(InvalidValueError, match="layers"):
        BlurPatchGAN(3, 8, 0, 4)
