"""A softmax over all codes of a table, of which never more than a part exists at a time.

Latents times codes can be far more numbers than anything else in a step: 2^31 for 2^13 latents and 2^18 codes. So codes
are taken in parts, and what a part gives is computed a second time in the backward pass instead of being kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vqgan.runtime.collectives import mean_over_processes

T = TypeVar("T")
LOGITS_AT_ONCE = 2**24  # latents × codes; in float32 64 MiB, of which there are a few
FEWEST_CODES = 2**10  # at once, however many latents there are
EXPORTED_CODES = 2**14  # at once in a graph that is exported, which does not know how many latents there will be


def most_aligned(latents: Float[Tensor, "n latent"], codebook: Float[Tensor, "codes latent"]) -> Int[Tensor, "n"]:
    """Index of the code with the largest product z·e for each latent; the lowest wins a tie."""
    return _largest(latents, codebook)[1]


def expected_code(
    latents: Float[Tensor, "n latent"], codebook: Float[Tensor, "codes latent"]
) -> Float[Tensor, "n latent"]:
    """Σ_k p_k sg[e_k], where p is the softmax of z·e_k over all codes: gradients go through p alone."""
    return torch.stack(_over_parts(_weighted, latents, codebook)).sum(0)


def entropies(
    latents: Float[Tensor, "n latent"], codebook: Float[Tensor, "codes latent"], temperature: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Of p = softmax(z·e_k / temperature): the mean of its entropies, and the entropy of its mean over all processes.

    In nats; the first is small where each latent is sure of its code, the second large where all codes are used.
    """
    summands, shares = zip(*_over_parts(_entropy, latents / temperature, codebook))
    mean = mean_over_processes(torch.cat(shares))
    # A share can be 0, where the logarithm has no finite gradient.
    return torch.stack(summands).sum(), -(mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()


def _over_parts(function: Callable[..., T], latents: Tensor, codebook: Tensor) -> list[T]:
    """What a function of latents, codes and what makes logits z·e into log p gives for each part of the codes."""
    with torch.no_grad():
        top, _ = _largest(latents, codebook)
    parts = _parts(latents, codebook)
    # Both are kept: their sum, as large as logits, would have rounded away what distinguishes p.
    sums = [_kept(_log_sum, latents, codes, top) for codes in parts]
    log_sum = torch.logsumexp(torch.stack(sums), 0)
    return [_kept(function, latents, codes, top, log_sum) for codes in parts]


def _weighted(latents: Tensor, codes: Tensor, top: Tensor, log_sum: Tensor) -> Tensor:
    return torch.exp(_below(latents, codes, top) - log_sum[:, None]) @ codes.detach()


def _entropy(latents: Tensor, codes: Tensor, top: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    """What codes add to the mean entropy, and the mean p of each."""
    log_p = _below(latents, codes, top) - log_sum[:, None]
    p = torch.exp(log_p)
    return -(p * log_p).sum() / len(latents), p.mean(0)


def _log_sum(latents: Tensor, codes: Tensor, top: Tensor) -> Tensor:
    return torch.logsumexp(_below(latents, codes, top), 1)


def _below(latents: Tensor, codes: Tensor, top: Tensor) -> Tensor:
    """Logits, counted from the largest of each latent."""
    return latents @ codes.T - top[:, None]


def _largest(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The largest product of each latent, and of which code."""
    parts = [(latents @ codes.T).max(1) for codes in _parts(latents, codebook)]
    top, part = torch.stack([best.values for best in parts]).max(0)
    within = torch.stack([best.indices for best in parts]).gather(0, part[None])[0]
    return top, part * _at_once(latents) + within


def _parts(latents: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
    return codebook.split(_at_once(latents))


def _at_once(latents: Tensor) -> int:
    if torch.compiler.is_exporting():
        return EXPORTED_CODES
    return max(FEWEST_CODES, LOGITS_AT_ONCE // len(latents))


def _kept(function: Callable[..., T], *arguments: Tensor) -> T:
    """What the function gives; only its arguments are kept for the backward pass."""
    kept: T = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return kept
