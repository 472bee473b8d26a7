"""Gradients that turn with the latents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqgan.quantizers.rotation import pass_gradient


def vectors(seed: int, count: int = 6, dim: int = 5) -> Tensor:
    """Of the shape of latents: (dim, count, 1)."""
    return torch.randn(dim, count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient_of(latents: Tensor, codes: Tensor, cotangent: Tensor) -> Tensor:
    latents = latents.clone().requires_grad_()
    out = pass_gradient("rotation", latents, codes)
    assert torch.equal(out, codes)
    return torch.autograd.grad((out * cotangent).sum(), latents)[0]


def test_the_gradient_is_that_of_the_matrix_that_turns_latents_into_codes() -> None:
    z, q, g = vectors(0), vectors(1), vectors(2)
    found = gradient_of(z, q, g)
    for n in range(z.shape[1]):
        a, b = z[:, n, 0] / z[:, n, 0].norm(), q[:, n, 0] / q[:, n, 0].norm()
        r = (a + b) / (a + b).norm()
        matrix = torch.eye(5, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(b, a)
        matrix *= q[:, n, 0].norm() / z[:, n, 0].norm()
        torch.testing.assert_close(matrix @ z[:, n, 0], q[:, n, 0])
        torch.testing.assert_close(found[:, n, 0], matrix.T @ g[:, n, 0])


def test_latents_on_their_code_or_a_multiple_of_it_get_the_gradient_scaled() -> None:
    z, g = vectors(0), vectors(2)
    torch.testing.assert_close(gradient_of(z, z, g), g)
    torch.testing.assert_close(gradient_of(z, 3 * z, g), 3 * g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_no_rotation_is_meant_the_gradient_goes_straight_through(dtype: torch.dtype) -> None:
    z, g = vectors(0).to(dtype), vectors(2).to(dtype)
    for latents, codes in ((torch.zeros_like(z), z), (z, torch.zeros_like(z)), (z, -z), (1e-30 * z, z)):
        assert torch.equal(gradient_of(latents, codes, g), g)


def test_no_gradient_reaches_the_codes() -> None:
    for gradient in ("straight_through", "rotation"):
        codes = vectors(1).requires_grad_()
        out = pass_gradient(gradient, vectors(0).requires_grad_(), codes)
        assert torch.autograd.grad(out.sum(), codes, allow_unused=True)[0] is None
