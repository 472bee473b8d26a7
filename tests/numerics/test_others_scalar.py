"""The numbers of the originals' own code of FSQ, LFQ and BSQ (`GOLDEN_OTHERS` names another folder of such files)."""

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

from vqgan.quantizers import (
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    Quantized,
    Quantizer,
)
from vqgan.quantizers.bits import EntropyPenalty, mean_probabilities, sample_entropy, to_groups

FOLDER = Path(os.environ.get("GOLDEN_OTHERS", Path(__file__).parent.parent / "golden" / "others"))
CODES, LOSSES, SHARP = 1e-5, 5e-5, 1e-4  # of the largest value; entropies at a temperature of 0.01 amplify noise
TEMPERATURE = 0.01  # of every LFQ here, which none of their configs says


class Case:
    """One original, its input, and what it gave."""

    def __init__(self, file: Path, name: str, described: dict[str, Any]) -> None:
        self.config: dict[str, Any] = described["config"]
        self.kind: str = described["class"]
        self.scalars: dict[str, float] = described["scalars"]
        with np.load(file.with_suffix(".npz")) as arrays:
            own = [key for key in arrays if key.startswith(f"{name}/")]
            self.arrays = {key.removeprefix(f"{name}/"): torch.from_numpy(arrays[key]) for key in own}
        quantized = self.arrays["quantized"]
        if "latent" in self.arrays:  # within a network
            self.latents, self.cotangent = self.arrays["latent"], torch.zeros_like(quantized)
        else:
            given, cotangent = described["input"], described["cotangent"]
            self.latents = noise(given["name"], given["shape"], given["scale"])
            self.cotangent = noise(cotangent["name"], quantized.shape, cotangent["scale"])
        self.latents.requires_grad_()

    def forward(self, quantizer: Quantizer) -> tuple[Quantized, Tensor]:
        """Ours, on latents with time behind the channels if they have it; also the codes in that order."""
        if self.latents.ndim == 4:
            output = quantizer(self.latents)
            return output, output.latents
        output = quantizer(self.latents.movedim(2, 1))
        return output, output.latents.movedim(1, 2)

    def gradient(self, of: Tensor) -> Tensor:
        return torch.autograd.grad(of, self.latents, retain_graph=True)[0]

    def check_codes(self, quantizer: Quantizer, big_endian: int | None = None, estimator: float = 1.0) -> Quantized:
        """Indices, codes and the estimator's gradient; ours is `estimator` times theirs."""
        output, codes = self.forward(quantizer)
        indices = output.indices if big_endian is None else reversed_bits(output.indices, big_endian)
        assert torch.equal(indices, self.arrays["indices"].long())
        assert_close(codes, self.arrays["quantized"], CODES)
        if "grad_z/cotangent" in self.arrays:
            gradient = self.gradient((codes * self.cotangent).sum())
            assert_close(gradient, estimator * self.arrays["grad_z/cotangent"], LOSSES)
        assert torch.equal(quantizer.lookup(output.indices), output.latents)
        return output


def noise(name: str, shape: Any, scale: float) -> Tensor:
    i = np.arange(np.prod(shape, dtype=int))
    phase = zlib.crc32(name.encode()) % 10007
    v = np.sin(i * 12.9898 + phase * 0.61803398875) * 43758.5453
    return torch.from_numpy((scale * (2 * (v - np.floor(v)) - 1)).astype(np.float32).reshape(tuple(shape)))


def reversed_bits(indices: Tensor, bits: int) -> Tensor:
    """The first number of a latent as the highest bit."""
    return sum((((indices >> i) & 1) << (bits - 1 - i) for i in range(bits)), torch.zeros_like(indices))


def assert_close(ours: Tensor | float, theirs: Tensor | float, relative: float, floor: float = 1e-6) -> None:
    a, b = (torch.as_tensor(value).detach() for value in (ours, theirs))
    assert float((a - b).abs().max()) <= max(relative * float(b.abs().max()), floor)


def entropies_of_lucidrains(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Means over groups of both entropies with the logarithm of no less than 1e-5, all codes of each latent at once."""
    bits = logits.shape[2]
    signs = 2.0 * ((torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1) - 1
    each = torch.softmax(logits / 2 @ signs.T, 2)
    sample, batch = (-(p * p.clamp(min=1e-5).log()).sum(-1).mean() for p in (each, mean_probabilities(logits)))
    return sample, batch


def cases(holds: Callable[[dict[str, Any]], bool]) -> pytest.MarkDecorator:
    """Those of all files of which something holds."""
    found = [
        pytest.param((file, name, described), id=f"{file.stem}-{name}")
        for file in sorted(FOLDER.glob("*.json"))
        for name, described in json.loads(file.read_text())["cases"].items()
        if holds(described)
    ]
    assert found, f"no golden file in {FOLDER}"
    return pytest.mark.parametrize("case", found)


def levels_of(described: dict[str, Any]) -> list[int] | None:
    """The levels of an FSQ, alone or within a network; None for everything else."""
    config = described["config"]
    if "regularizer_config" in config:
        config = config["regularizer_config"]["params"]
    is_it = described["class"] in ("FSQ", "FSQRegularizer") or described["class"].endswith(
        ("VideoTokenizer", "ImageTokenizer", "AutoencodingEngine")
    )
    return config.get("levels") if is_it else None


@cases(lambda described: levels_of(described) is not None)
def test_fsq(case: tuple[Path, str, dict[str, Any]]) -> None:
    levels = levels_of(case[2])
    assert levels is not None
    golden = Case(*case)
    quantizer = FiniteScalarQuantizer(levels, symmetric=golden.config.get("preserve_symmetry", False), gain=1.0)
    golden.check_codes(quantizer)


@cases(lambda described: described["class"] == "LFQ" and not described["config"].get("spherical"))
def test_lfq(case: tuple[Path, str, dict[str, Any]]) -> None:
    golden, config = Case(*case), case[2]["config"]
    is_lucidrains = "entropy_loss_weight" in config
    codes, depth = config["codebook_size"], config.get("num_codebooks", 1)
    bits = codes.bit_length() - 1
    weights = {"commitment_weight": config.get("commitment_loss_weight", 0.25)}
    if is_lucidrains:
        weights["entropy_weight"] = config["entropy_loss_weight"]
        weights["diversity_weight"] = config.get("diversity_gamma", 1.0)
    else:
        weights["entropy_weight"] = config["sample_minimization_weight"]
        weights["diversity_weight"] = config["batch_maximization_weight"] / config["sample_minimization_weight"]
    quantizer = LookupFreeQuantizer(
        codes, depth, **weights, temperature=TEMPERATURE, entropy_boost=1.0, entropy_boost_steps=1
    )
    output = golden.check_codes(quantizer, bits if is_lucidrains else None)
    logits = to_groups(4 / TEMPERATURE * golden.latents, bits)
    if is_lucidrains:
        sample, batch = entropies_of_lucidrains(logits)
    else:
        probabilities = mean_probabilities(logits)
        sample, batch = sample_entropy(logits) / depth, -(probabilities * (probabilities + 1e-5).log()).sum(1).mean()
    commitment = (golden.latents - output.latents.detach()).square().mean()
    terms = {"per_sample_entropy": sample, "commitment": commitment}
    terms["batch_entropy" if is_lucidrains else "codebook_entropy"] = batch
    for name, term in terms.items():
        assert_close(term, golden.scalars[name], SHARP)
        assert_close(golden.gradient(term), golden.arrays[f"grad_z/{name}"], SHARP)
    whole = weights["entropy_weight"] * (sample - weights["diversity_weight"] * batch)
    if is_lucidrains:
        whole = whole + weights["commitment_weight"] * commitment
    name = "aux_loss" if is_lucidrains else "entropy_aux_loss"
    # The gradients of both entropies all but cancel; noise is that of each.
    noisy = SHARP * weights["entropy_weight"] * float(golden.arrays["grad_z/per_sample_entropy"].abs().max())
    assert_close(golden.gradient(whole), golden.arrays[f"grad_z/{name}"], SHARP, noisy)
    # Ours have neither clamp nor 1e-5 in the logarithm, which changes the third digit.
    assert_close(output.metrics["sample_entropy"] / depth, golden.scalars["per_sample_entropy"], 1e-2)
    assert_close(output.metrics["batch_entropy"] / depth, batch, 1e-2)
    if not is_lucidrains:
        whole = whole + weights["commitment_weight"] * commitment
    assert_close(output.loss, whole, 1e-2)


@cases(lambda described: described["class"] == "LFQ" and bool(described["config"].get("spherical")))
def test_lfq_on_a_sphere_is_bsq(case: tuple[Path, str, dict[str, Any]]) -> None:
    golden, config = Case(*case), case[2]["config"]
    codes = config["codebook_size"]
    bits = codes.bit_length() - 1
    quantizer = BinarySphericalQuantizer(
        codes, depth=1, commitment_weight=config["commitment_loss_weight"] / bits,  # a mean over numbers
        entropy_weight=config["entropy_loss_weight"], diversity_weight=config.get("diversity_gamma", 1.0),
        group_bits=bits, temperature=TEMPERATURE, entropy_boost=1.0, entropy_boost_steps=1,
    )  # fmt: skip
    output = golden.check_codes(quantizer, bits, estimator=bits**-0.5)  # which has no scale there
    u = golden.latents / golden.latents.norm(dim=1, keepdim=True)
    sample, batch = entropies_of_lucidrains(to_groups(4 * bits**-0.5 / TEMPERATURE * u, bits))
    whole = config["entropy_loss_weight"] * (sample - config.get("diversity_gamma", 1.0) * batch)
    whole = whole + config["commitment_loss_weight"] * (u - output.latents.detach()).square().mean()
    assert_close(whole, golden.scalars["aux_loss"], SHARP)
    assert_close(golden.gradient(whole), golden.arrays["grad_z/aux_loss"], SHARP)
    assert_close(output.loss, whole, 1e-3)  # ours has no clamp in the logarithm
    assert_close(golden.gradient(output.loss), golden.gradient(whole), 5e-3)


@cases(lambda described: described["class"] == "BinarySphericalQuantizer")
def test_bsq(case: tuple[Path, str, dict[str, Any]]) -> None:
    golden, config = Case(*case), case[2]["config"]
    bits, is_per_bit = config["embed_dim"], config.get("persample_entropy_compute") == "analytical"
    quantizer = BinarySphericalQuantizer(
        2**bits, depth=1, commitment_weight=config["beta"],
        entropy_weight=config["zeta"] * config["gamma0"] / config["inv_temperature"],
        diversity_weight=config["gamma"] / config["gamma0"], group_bits=1 if is_per_bit else config["group_size"],
        temperature=1 / config["inv_temperature"], entropy_boost=1.0, entropy_boost_steps=1,
    )  # fmt: skip
    output = golden.check_codes(quantizer, bits)
    relative = SHARP if config["inv_temperature"] > 10 else LOSSES
    assert_close(output.loss, golden.scalars["loss"], LOSSES)
    assert_close(golden.gradient(output.loss), golden.arrays["grad_z/loss"], relative)
    assert_close(output.metrics["sample_entropy"], golden.scalars["per_sample_entropy"], relative)
    assert_close(output.metrics["batch_entropy"], golden.scalars["codebook_entropy"], relative)


@cases(lambda described: "entropy_loss_weight_used" in described["scalars"])
def test_the_entropys_weight_falls(case: tuple[Path, str, dict[str, Any]]) -> None:
    _, _, described = case
    config = described["config"]
    weight, steps = config["entropy_loss_weight"], config["entropy_loss_annealing_steps"]
    penalty = EntropyPenalty(weight, 1.0, boost=config["entropy_loss_annealing_factor"], boost_steps=steps)
    penalty.steps.fill_(described["n_steps"])
    assert_close(weight * penalty.factor(), described["scalars"]["entropy_loss_weight_used"], 1e-6)
