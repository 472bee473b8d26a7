"""What a prior goes on to: codes drawn one by one, each from its share under those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.prior.transformer import Cache, Codes, Side, Transformer
from vqgan.runtime.device import Precision


@dataclass(kw_only=True)
class Sampling:
    """How clips are continued: the values of `conf/sample.yaml`.

    Args:
        videos: at most so many held-out ones, evenly spread.
        prompt_times: times of codes that are given, from the beginning of the video on; 0 gives nothing.
        times: of codes in all; fewer where a video has fewer.
        temperature: that the logits are divided by, positive; below 1 the likely becomes likelier.
        top_p: in (0, 1]; of each code's choices only the likeliest are drawn, which have so much of the probability
            together (Holtzman et al. 2019, arXiv:1904.09751).
        seed: of what is drawn: a function of it, the video and the code's number.
        batch_size: videos at once.
        device: `auto` (cuda, mps or cpu, the first there is) or a torch device.
        precision: of the prior: `fp32`, `bf16` or `tf32`.
        gfvd: measure it, see `Gfvd`.
        download: fetch its network if it is not here.
        weights: `i3d`, the file of its network; None for torch's cache, or a download into it.
    """

    videos: int
    prompt_times: int
    times: int
    temperature: float
    top_p: float
    seed: int
    batch_size: int
    device: str
    precision: Precision
    gfvd: bool
    download: bool
    weights: dict[str, str | None]

    def __post_init__(self) -> None:
        for key in ("videos", "times", "batch_size"):
            check(getattr(self, key) > 0, key, getattr(self, key), "positive")
        fits = 0 <= self.prompt_times < self.times
        check(fits, "prompt_times", self.prompt_times, f"in [0, times), and times is {self.times}")
        check(self.temperature > 0, "temperature", self.temperature, "positive")
        check(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        check(self.seed >= 0, "seed", self.seed, "at least 0")


@torch.no_grad()
def continued(
    prior: Transformer,
    prompt: Codes,
    times: int,
    window: int,
    side: Side | None,
    numbers: Float[np.ndarray, "batch codes"],
    sampling: Sampling,
    cached: bool = True,
) -> Codes:
    """Clips that begin with a prompt and go on as the prior has it.

    Where they become longer than the prior sees at once, it goes on from their last half, as it was measured.

    Args:
        prior: on its device, in evaluation mode.
        prompt: what they begin with; perhaps no times.
        times: of the clips.
        window: times that the prior sees at once.
        side: of all times; None where it was trained without.
        numbers: in [0, 1), by which each code of the clips is drawn.
        sampling: temperature and top-p.
        cached: keep keys and values, instead of computing all slots for each code; the codes are the same.
    """
    batch, given, rows, columns, depth = prompt.shape
    device, a_time = prior.bias.device, rows * columns * depth
    made = torch.zeros(batch, times * a_time, dtype=torch.int64, device=device)
    made[:, : given * a_time] = prompt.flatten(1)
    first = 0 if given < window else given - window // 2
    done = given
    while done < times:
        upto = min(times, first + window)
        begins = torch.full((batch,), first == 0, device=device)
        of_window = None if side is None else side[:, first:upto]
        cache = Cache(len(prior.layers), (upto - first) * a_time)
        for code in range(done * a_time, upto * a_time):
            # Slot n is told code n - 1, so those up to `code` are told all codes before it.
            seen = F.pad(made[:, first * a_time : code], (1, 0))
            begun = cache.length if cached else 0
            logits = prior.logits(
                seen[:, begun:], rows, columns, begins, of_window, begun, cache if cached else None
            )  # fmt: skip
            made[:, code] = drawn(logits[:, -1], numbers[:, code], sampling).to(device)
        done, first = upto, upto - window // 2
    return made.view(batch, times, rows, columns, depth)


def drawn(
    logits: Float[Tensor, "batch codes"], numbers: Float[np.ndarray, "batch"], sampling: Sampling
) -> Int[Tensor, "batch"]:
    """One code for each row of logits, on the CPU: that at which the shares of the likelier ones reach its number."""
    shares, codes = (
        (logits.double().cpu() / sampling.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
    )
    above = shares.cumsum(-1) - shares  # the likeliest one has none above it, and stays whatever top_p is
    shares = shares * (above < sampling.top_p)
    ends = shares.cumsum(-1) / shares.sum(-1, keepdim=True)
    found = (ends <= torch.from_numpy(numbers)[:, None]).sum(-1, keepdim=True)
    kept = (shares > 0).sum(-1, keepdim=True)
    return codes.gather(-1, found.minimum(kept - 1))[:, 0]


def numbers_for(seed: int, videos: Sequence[int], codes: int) -> Float[np.ndarray, "batch codes"]:
    """By which the codes of videos are drawn."""
    return np.stack([np.random.default_rng([seed, video]).random(codes) for video in videos])
