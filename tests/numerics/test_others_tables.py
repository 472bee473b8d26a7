"""The numbers of the originals of quantizers with tables; `GOLDEN_OTHERS` names another folder of such files."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.numerics.reference import filled
from vqgan.quantizers import (
    CosineQuantizer,
    IndexPropagationQuantizer,
    ProjectedQuantizer,
    Quantized,
    Quantizer,
    ResidualQuantizer,
    RevivedQuantizer,
)
from vqgan.quantizers.rotation import pass_gradient
from vqgan.quantizers.softmax import entropies
from vqgan.quantizers.wasserstein import moments, wasserstein

FOLDER = Path(os.environ.get("GOLDEN_OTHERS", Path(__file__).parent.parent / "golden" / "others"))
CODES, LOSSES, SHARP = 1e-5, 5e-5, 1e-4  # of the largest value; entropies at a temperature of 0.01 amplify noise
TABLE = "quantize.embedding.weight"


class Case:
    """One original, its input, and what it gave."""

    def __init__(self, file: Path, name: str, described: dict[str, Any]) -> None:
        self.described, self.config = described, described["config"]
        self.scalars: dict[str, float] = described["scalars"]
        with np.load(file.with_suffix(".npz")) as arrays:
            own = [key for key in arrays if key.startswith(f"{name}/")]
            self.arrays = {key.removeprefix(f"{name}/"): torch.from_numpy(arrays[key]) for key in own}

    def filled(self, name: str) -> Tensor:
        """A tensor of the original's state."""
        return filled(name, self.described["state_shapes"][name])

    def latents(self) -> Tensor:
        """What enters the quantizer: as the network gave it, or by formula."""
        latents = self.arrays["latent"] if "latent" in self.arrays else noise(self.described["input"])
        return latents.requires_grad_()

    def cotangent(self) -> Tensor:
        given = self.described["cotangent"]
        shape = self.arrays["quantized"].shape if isinstance(given["shape"], str) else given["shape"]
        return noise({**given, "shape": shape})

    def check_codes(self, quantizer: Quantizer, latents: Tensor, prefix: str = "") -> Quantized:
        """Indices and codes, which `lookup` gives as well."""
        output = quantizer(latents)
        assert torch.equal(output.indices, self.arrays[f"{prefix}indices"].long())
        assert torch.equal(quantizer.lookup(output.indices), output.latents)
        if f"{prefix}quantized" in self.arrays:
            assert_close(output.latents, self.arrays[f"{prefix}quantized"], CODES)
        return output

    def check_gradients(self, of: Tensor, name: str, relative: float, **variables: Tensor) -> None:
        """The gradients of one number, which the files call by its name; what they do not have is zero."""
        found = torch.autograd.grad(of, list(variables.values()), retain_graph=True, allow_unused=True)
        for key, gradient in zip(variables, found):
            theirs = self.arrays.get(f"{key}/{name}")
            ours = torch.zeros(()) if gradient is None else gradient
            assert_close(ours, torch.zeros(()) if theirs is None else theirs, relative)


def noise(given: dict[str, Any]) -> Tensor:
    shape = tuple(given["shape"])
    i = np.arange(np.prod(shape, dtype=int))
    v = np.sin(i * 12.9898 + zlib.crc32(given["name"].encode()) % 10007 * 0.61803398875) * 43758.5453
    return torch.from_numpy((given["scale"] * (2 * (v - np.floor(v)) - 1)).astype(np.float32).reshape(shape))


def assert_close(ours: Tensor | float, theirs: Tensor | float, relative: float) -> None:
    a, b = torch.as_tensor(ours).detach(), torch.as_tensor(theirs)
    assert float((a - b).abs().max()) <= max(relative * float(b.abs().max()), 1e-6)


def cases(holds: Callable[[dict[str, Any]], bool]) -> pytest.MarkDecorator:
    """Those of all files of which something holds."""
    found = [
        pytest.param(Case(file, name, described), id=f"{file.stem}-{name}")
        for file in sorted(FOLDER.glob("*.json"))
        for name, described in json.loads(file.read_text())["cases"].items()
        if holds(described)
    ]
    assert found, f"no golden file in {FOLDER}"
    return pytest.mark.parametrize("case", found)


@cases(lambda described: "codebook_l2_norm" in described["config"])
def test_llamagen(case: Case) -> None:
    """`VectorQuantizer` of LlamaGen, on unit vectors or not."""
    make = CosineQuantizer if case.config["codebook_l2_norm"] else RevivedQuantizer
    weights = {"commitment_weight": case.config["commit_loss_beta"], "codebook_weight": 1.0}
    sizes = (case.config["codebook_size"], case.config["codebook_embed_dim"])
    quantizer = make(*sizes, **weights, gradient="straight_through", start_from_data=False, revive_after=None)
    quantizer.load_state_dict({"codebook": case.filled(TABLE)}, strict=False)
    latents = case.latents()
    output = case.check_codes(quantizer, latents)
    if "cotangent" not in case.described:
        return  # a whole network's
    moved = {"grad_z": latents, "grad_codebook": quantizer.codebook}
    case.check_gradients((output.latents * case.cotangent()).sum(), "straight_through", LOSSES, **moved)
    for name, silent in (("vq_loss", "commitment_weight"), ("commit_loss", "codebook_weight")):
        setattr(quantizer, silent, 0.0)
        loss = quantizer(latents).loss
        setattr(quantizer, silent, weights[silent])
        assert_close(loss, case.scalars[name], LOSSES)
        case.check_gradients(loss, name, LOSSES, **moved)


@cases(lambda described: "rotate_to" in described["class"])
def test_rotation_trick(case: Case) -> None:
    given = case.described["input"]
    codes, cotangent = (noise(values).T[..., None] for values in (given["codes"], case.described["cotangent"]))
    latents = noise(given["latents"]).T[..., None].requires_grad_()
    turned = pass_gradient("rotation", latents, codes)
    assert torch.equal(turned, codes), "theirs are codes but for rounding"
    (gradient,) = torch.autograd.grad((turned * cotangent).sum(), latents)
    for theirs in ("cfifty_vqvae", "lucidrains"):
        assert_close(turned[..., 0].T, case.arrays[f"{theirs}/output"], CODES)
        assert_close(gradient[..., 0].T, case.arrays[f"{theirs}/grad_latents"], LOSSES)


@cases(lambda described: "rotate_to" in described["class"])
def test_rotation_of_unit_vectors(case: Case) -> None:
    """As the original's VQGAN does it: the direction is turned, and the gradient goes on through the normalisation."""
    given = case.described["input"]
    codes, cotangent = (noise(values).T[..., None] for values in (given["codes"], case.described["cotangent"]))
    latents = noise(given["latents"]).T[..., None].requires_grad_()
    lengths = codes.norm(dim=0, keepdim=True)
    turned = lengths * pass_gradient("rotation", latents / latents.norm(dim=0, keepdim=True), codes / lengths)
    (gradient,) = torch.autograd.grad((turned * cotangent).sum(), latents)
    assert_close(gradient[..., 0].T, case.arrays["cfifty_vqgan/grad_latents"], LOSSES)


@cases(lambda described: described["class"] == "SimVQ")
def test_simvq(case: Case) -> None:
    beta = case.config["beta"]
    commitment, codebook = (1.0, beta) if case.config["legacy"] else (beta, 1.0)
    quantizer = ProjectedQuantizer(
        case.config["n_e"], case.config["e_dim"], commitment, codebook, gradient="straight_through"
    )
    names = {"frozen": TABLE} | {f"projection.{p}": f"quantize.embedding_proj.{p}" for p in ("weight", "bias")}
    quantizer.load_state_dict({ours: case.filled(theirs) for ours, theirs in names.items()}, strict=False)
    latents = case.latents()
    output = case.check_codes(quantizer, latents)
    assert_close(output.loss, case.scalars["commitment"], LOSSES)
    moved = {f"grad/{names[f'projection.{name}']}": p for name, p in quantizer.projection.named_parameters()}
    case.check_gradients(output.loss, "commitment", LOSSES, grad_z=latents, **moved)
    case.check_gradients((output.latents * case.cotangent()).sum(), "cotangent", LOSSES, grad_z=latents, **moved)


def ibq(case: Case, **values: float) -> IndexPropagationQuantizer:
    config = case.config
    sizes = (config.get("n_embed", config.get("n_e")), config.get("embed_dim", config.get("e_dim")))
    settings = {"entropy_weight": 0.0, "diversity_weight": 1.0, "temperature": config["entropy_temperature"], **values}
    return IndexPropagationQuantizer(
        *sizes, soft_weight=1.0, commitment_weight=1.0, codebook_weight=config["beta"],
        start_from_data=False, revive_after=None, **settings,
    )  # fmt: skip


def is_ibq(described: dict[str, Any]) -> bool:
    return described["class"] in ("IBQ", "IndexPropagationQuantize") and not described["config"].get("l2_normalize")


@cases(lambda described: is_ibq(described) and "cotangent" not in described)
@torch.no_grad()
def test_ibq_within_a_network(case: Case) -> None:
    quantizer = ibq(case).eval()
    averaged = {"ema/": "model_ema.quantizeembeddingweight"} if case.config.get("use_ema") else {}
    for prefix, table in {"": TABLE, **averaged}.items():
        quantizer.codebook.copy_(case.filled(table))
        output = case.check_codes(quantizer, case.arrays[f"{prefix}latent"], prefix)
        assert_close(output.loss, case.scalars[f"{prefix}quant_loss"], LOSSES)


@cases(lambda described: is_ibq(described) and "cotangent" in described)
def test_ibq(case: Case) -> None:
    quantizer = ibq(case)
    quantizer.load_state_dict({"codebook": case.filled(TABLE)}, strict=False)
    latents = case.latents()
    output = case.check_codes(quantizer, latents)
    moved = {"grad_z": latents, "grad_codebook": quantizer.codebook}
    case.check_gradients((output.latents * case.cotangent()).sum(), "cotangent", LOSSES, **moved)
    assert_close(output.loss, case.scalars["quant_loss"], LOSSES)
    case.check_gradients(output.loss, "quant_loss", LOSSES, **moved)
    z = latents.movedim(1, -1).flatten(0, -2)
    of_each, of_mean = entropies(z, quantizer.codebook, case.config["entropy_temperature"])
    assert_close(of_each, case.scalars["sample_entropy"], SHARP)
    case.check_gradients(of_each, "sample_entropy", SHARP, **moved)
    # Theirs has 1e-5 added within the logarithm: what that changes is computed at full size here.
    p = torch.softmax(z @ quantizer.codebook.T / case.config["entropy_temperature"], 1).mean(0)
    theirs = of_mean + (p * (p.clamp(min=1e-30).log() - (p + 1e-5).log())).sum()
    assert_close(theirs, case.scalars["avg_entropy"], SHARP)
    case.check_gradients(theirs, "avg_entropy", SHARP, **moved)
    weights = [case.config[f"{name}_weight"] for name in ("sample_minimization", "batch_maximization")]
    total = weights[0] * of_each - weights[1] * theirs
    assert_close(total, case.scalars["entropy_loss"], SHARP)
    case.check_gradients(total, "entropy_loss", SHARP * 10, **moved)  # a small difference of large numbers


@cases(lambda described: "calc_wasserstein_loss" in described["class"])
def test_codebook_matching(case: Case) -> None:
    latents, codebook = noise(case.described["input"]), case.filled(TABLE).requires_grad_()
    if "VAR" in case.described["class"]:
        mean, covariance = moments(latents)
        distance = wasserstein(mean, 0.25 * covariance, *moments(codebook))
    else:  # both sides divided by the largest deviation
        scale = latents.std(0).max()
        distance = wasserstein(*moments(latents / scale), *moments(codebook / scale))
    assert_close(distance, case.scalars["wasserstein_loss"], LOSSES)
    (gradient,) = torch.autograd.grad(distance, codebook)
    assert_close(gradient, case.arrays["grad_codebook"], LOSSES)
    assert float(gradient.norm()) == pytest.approx(case.scalars["grad_norm_codebook"], rel=LOSSES)


@cases(lambda described: described["class"] == "ResidualVQ")
def test_residual_vq(case: Case) -> None:
    config = case.config
    base = RevivedQuantizer(
        config["codebook_size"], config["dim"], commitment_weight=1.0, codebook_weight=0.0,
        gradient="straight_through", start_from_data=False, revive_after=None,
    )  # fmt: skip
    quantizer = ResidualQuantizer(base, config["num_quantizers"], shared=False, scale=1.0, gradient="straight_through")
    with torch.no_grad():
        for i in range(config["num_quantizers"]):
            name = f"quantize.layers.{i}._codebook.embed"
            shape = case.described["state_shapes"][name]
            table = noise({"name": name, "shape": shape, "scale": 0.5 / (1 + i)})
            quantizer.base(i).get_parameter("codebook").copy_(table[0])
    latents = noise(case.described["input"])
    output = quantizer.eval()(latents.movedim(-1, 1)[..., None])
    assert torch.equal(output.indices[:, :, 0], case.arrays["indices"].long())
    assert torch.equal(quantizer.lookup(output.indices), output.latents)
    assert_close(output.latents[..., 0].movedim(1, -1), case.arrays["quantized"], CODES)
