"""Several codes a position, over any quantizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import Compose
from vqgan.autoencoder import Autoencoder
from vqgan.config.build import build, check_top_level
from vqgan.errors import ConfigError
from vqgan.quantizers import (
    CosineQuantizer,
    EMAQuantizer,
    IndexPropagationQuantizer,
    ProductQuantizer,
    ProjectedQuantizer,
    Quantizer,
    ResidualQuantizer,
    RevivedQuantizer,
    VectorQuantizer,
    WassersteinQuantizer,
)
from vqgan.tokenizer.folder import part_in
from vqgan.tokenizer.rebuild import parts_of
from vqgan.training.finite import Buffers

TABLE: dict[str, Any] = {"gradient": "straight_through", "start_from_data": False, "revive_after": None}
STARTED = TABLE | {"start_from_data": True}
BASES: dict[str, Callable[[], Quantizer]] = {
    "cosine": lambda: CosineQuantizer(16, 4, 0.25, 1.0, **TABLE),
    "ema": lambda: ema(),
    "ibq": lambda: IndexPropagationQuantizer(
        16, 4, 1.0, 1.0, 0.25, 0.05, 1.0, 0.1, start_from_data=False, revive_after=None
    ),
    "revived": lambda: RevivedQuantizer(16, 4, 0.25, 1.0, **TABLE),
    "simvq": lambda: ProjectedQuantizer(16, 4, 0.25, 1.0, "straight_through"),
    "vq": lambda: VectorQuantizer(16, 4, 0.25, 1.0),
    "wasserstein": lambda: WassersteinQuantizer(16, 4, 0.25, 1.0, matching_weight=0.5, moments_decay=0.9, **TABLE),
}


def ema(**values: Any) -> EMAQuantizer:
    settings = {"commitment_weight": 0.25, "decay": 0.9, "eps": 1e-5, "start_from_data": False, "revive_after": None}
    return EMAQuantizer(16, 4, **{**settings, **values})


def residual(base: Quantizer, depth: int = 3, **values: Any) -> ResidualQuantizer:
    return ResidualQuantizer(base, depth, **{"shared": False, "scale": 1.0, "gradient": "straight_through", **values})


KINDS: dict[str, Callable[[Quantizer], Quantizer]] = {
    "residual": residual,
    "residual, shared": lambda base: residual(base, shared=True, scale=0.5, gradient="rotation"),
    "product": lambda base: ProductQuantizer(base, 3),
    "residual of products": lambda base: residual(ProductQuantizer(base, 2), 3),
    "product of residuals": lambda base: ProductQuantizer(residual(base, 3), 2),
}


def latents(dim: int = 4, seed: int = 0, count: int = 2) -> Tensor:
    return torch.randn(count, dim, 3, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_go_forward_to_the_bit_and_gradients_reach_the_encoder(kind: str, base: str) -> None:
    torch.manual_seed(0)
    q = KINDS[kind](BASES[base]())
    z = latents(q.latent_dim).requires_grad_()
    for step in range(2):
        out = q(z)
        assert out.indices.shape == (2, 3, 3, q.depth)
        assert q.depth in (3, 6)
        assert torch.equal(q.lookup(out.indices), out.latents), f"step {step}"
        assert torch.equal(q.lookup(out.indices[:1, :1]), out.latents[:1, :, :1])
        (slope,) = torch.autograd.grad((out.latents * latents(q.latent_dim, 3)).sum(), z, retain_graph=True)
        assert (slope != 0).all()
        (slope,) = torch.autograd.grad(out.loss, z)
        assert (slope != 0).any(1).all()
        assert 1 <= float(out.metrics["perplexity"]) <= 16
        q.update()
    indices = q.eval()(z).indices
    assert torch.equal(indices, q(z).indices), "the same in every pass of evaluation"


def test_residual_codes_are_those_of_a_written_out_loop() -> None:
    torch.manual_seed(0)
    q = residual(RevivedQuantizer(16, 4, 0.25, 1.0, **TABLE), scale=0.7)
    with torch.no_grad():
        for base in q.bases:
            base.codebook.normal_()
    z = latents()
    out = q(z)
    left, losses = z.movedim(1, -1).reshape(-1, 4), []
    for depth in range(3):
        scale, codebook = 0.7**depth, q.base(depth).get_parameter("codebook").detach()
        chosen = torch.cdist(left / scale, codebook).argmin(1)
        assert torch.equal(out.indices[..., depth].flatten(), chosen)
        losses.append(1.25 * (left / scale - codebook[chosen]).square().mean())
        left = left - scale * codebook[chosen]
    torch.testing.assert_close(z - out.latents, left.view(2, 3, 3, 4).movedim(-1, 1))
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())


@pytest.mark.parametrize("base", ["ema", "revived"])
def test_later_codebooks_start_once_something_is_left_for_them(base: str) -> None:
    """The first one starts on as many latents as it has codes, which leaves nothing of them."""
    torch.manual_seed(0)
    q = residual(ema(start_from_data=True) if base == "ema" else RevivedQuantizer(16, 4, 0.25, 1.0, **STARTED))
    distinct = []
    for seed in range(4):
        Buffers([q]).remember()
        q(latents(seed=seed, count=1))
        q.update()
        distinct.append([len(part.codebook.detach().unique(dim=0)) for part in q.bases])
    assert distinct[0][1:] == [1, 1]
    assert all(count >= 8 for count in distinct[-1]), distinct


def test_the_commitment_is_that_of_the_sums_so_far() -> None:
    """RQ-VAE: mean_i mean (z - sg[Σ_{j≤i} e_j])²."""
    torch.manual_seed(0)
    q = residual(ema(commitment_weight=1.0), shared=True)
    z = latents().requires_grad_()
    out = q(z)
    sums = torch.stack([q.base(0).lookup(part) for part in q.split(out.indices)]).cumsum(0)
    expected = (z - sums).square().mean()
    torch.testing.assert_close(out.loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (out.loss, expected)))


def test_a_shared_codebook_moves_once_a_step_by_the_residuals_of_all_depths() -> None:
    torch.manual_seed(0)
    q = residual(ema(), shared=True)
    alone = copy.deepcopy(q.base(0))
    before = alone.get_buffer("codebook").clone()
    z = latents()
    out = q(z)
    assert torch.equal(q.base(0).get_buffer("codebook"), before), "each depth sees the same"
    codes = [alone.lookup(part) for part in q.split(out.indices)]
    alone(torch.cat([z, z - codes[0], z - codes[0] - codes[1]]))
    q.update()
    alone.update()
    torch.testing.assert_close(q.base(0).get_buffer("codebook"), alone.get_buffer("codebook"))
    assert len(q.bases) == 1


def test_groups_are_quantizers_of_their_own() -> None:
    torch.manual_seed(0)
    q = ProductQuantizer(ema(start_from_data=True), 2)
    apart = [copy.deepcopy(q.base(number)) for number in range(2)]
    for step in range(3):
        z = latents(8, seed=step)
        torch.manual_seed(step)
        out = q(z)
        q.update()
        torch.manual_seed(step)
        parts = [quantizer(group) for quantizer, group in zip(apart, z.split(4, 1))]
        for quantizer in apart:
            quantizer.update()
        assert torch.equal(out.indices, torch.stack([part.indices for part in parts], -1))
        assert torch.equal(out.latents, torch.cat([part.latents for part in parts], 1))
        torch.testing.assert_close(out.loss, (parts[0].loss + parts[1].loss) / 2)
        product = parts[0].metrics["perplexity"] * parts[1].metrics["perplexity"]
        torch.testing.assert_close(out.metrics["perplexity"], product.sqrt())
    assert float(q.usage(2)) == pytest.approx(float(apart[0].usage(2) + apart[1].usage(2)) / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_save_load_and_one_step_equal_never_having_stopped(kind: str) -> None:
    q, loaded = (KINDS[kind](ema(start_from_data=True, revive_after=1)) for _ in range(2))
    for step in range(3):
        q(latents(q.latent_dim, step))
        q.update()
    loaded.load_state_dict(q.state_dict())
    for each in (q, loaded):
        torch.manual_seed(1)
        each(latents(q.latent_dim, 7))
        each.update()
    assert all(torch.equal(a, b) for a, b in zip(q.state_dict().values(), loaded.state_dict().values()))


@pytest.mark.parametrize("model", ["residual", "product"])
def test_a_base_is_a_section_that_is_checked_built_and_built_again(model: str, composed: Compose) -> None:
    config = composed(f"model={model}", "model.quantizer.base.codebook_size=32")
    check_top_level(config)
    backbone = build(config.backbone, "backbone")
    trained = Autoencoder(backbone, build(config.model.quantizer, "model.quantizer"))
    described = {name: part_in(config, path) for name, path in (("backbone",) * 2, ("quantizer", "model.quantizer"))}
    _, quantizer = parts_of({"format": 2, **described}, trained.state_dict(), None)
    quantizer.load_state_dict(trained.quantizer.state_dict())
    z = latents(quantizer.latent_dim)
    assert torch.equal(quantizer.eval()(z).indices, trained.quantizer.eval()(z).indices)


@pytest.mark.parametrize("model", ["residual", "product"])
def test_what_is_wrong_with_a_base_is_named(model: str, composed: Compose) -> None:
    unknown = composed(f"model={model}", "+model.quantizer.base.decays=0.5")
    with pytest.raises(ConfigError, match=r"^Unknown key 'model.quantizer.base.decays'. Did you mean 'model.quantizer"):
        check_top_level(unknown)
    wrong = composed(f"model={model}", "model.quantizer.base.decay=2").model.quantizer
    with pytest.raises(ConfigError, match=r"^model.quantizer.base.decay must be in \[0, 1\), but is 2"):
        build(wrong, "model.quantizer")
