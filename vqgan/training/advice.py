"""Warnings that teach: what a run's numbers say is going wrong, in one sentence each, with what to try.

A rule is a function of the history and the setup that returns its sentence, or None; its name is the advice's name. A
rule needs patience, since a healthy run looks ill for a while at its start and where its adversary comes in: it speaks
of what has lasted. To add one, write it, and name it in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import exp, log
from statistics import fmean, median
from typing import Any, Generic, Protocol, TypeVar

from vqgan.loggers.logger import Advice
from vqgan.quantizers.usage import touched
from vqgan.runs.checkpoint import Stateful
from vqgan.runs.metrics import MUCH_WAITING
from vqgan.training.history import FEWEST, LATER_EVALUATIONS, SOME_STEPS, History, Row, Setup

S = TypeVar("S")

LOW_USAGE = 0.1  # of the codes that could have been chosen; healthy runs use more than half
RISING = 1.1  # low usage or perplexity that grows by so much from one window to the next is mending itself
# Of the best window's perplexity. Batches of short runs stayed above 0.8 of it (emavq in 750 steps, ibq, lfq and bsq in
# 200); those of lfq without its term for diversity went to 0.2 in 20 steps.
FALLEN = 0.5
MUCH_WORSE = 1.25  # the pixel distance after the adversary came in, to the one before: 2 dB; 0.9 in the demo
NO_BETTER_THAN_CHANCE, NEARLY_PERFECT = 0.98, 0.1  # of the loss that equal logits for real and fake give
# In steps of the discriminator. The demo's is at 1.00 for its first hundred, and recovers.
STUCK_UPDATES, WINNING_UPDATES = 500, 200
# Of the discriminator's loss. In a short run with a weight of 0.001 LeCam was 0.0003 of it where nothing was told apart
# yet, 0.01 after 20 steps of the discriminator, 0.6 after 40.
NO_SHARE = 0.01
AT_CLAMP = 0.99  # of the clamp; the logged weight is a mean over micro-batches
WORSE_DECIBELS, BETTER_PIXELS = 0.5, 0.9  # validation PSNR below its best, while the pixel distance is 0.9 of then's


def codebook_collapse(history: History, setup: Setup) -> str | None:
    """Few codes are in use, and neither they nor the perplexity grow, over two windows of usage after a first one.

    1d-tokenizer #27, ImageFolder #29, TokenFlow #28, vector-quantize-pytorch #154, #170, #223.
    """
    rows = history.last(2 * setup.usage_steps, "codebook/usage")
    if not rows or rows[-1]["step"] < 3 * setup.usage_steps:
        return None
    possible = touched(setup.usage_steps * setup.latents_per_step, setup.codebook_size)
    usage, perplexity = ([row[name] for row in rows] for name in ("codebook/usage", "codebook/perplexity"))
    if max(usage) >= LOW_USAGE * possible or _growth(usage) > RISING or _growth(perplexity) > RISING:
        return None
    return (
        f"Only {usage[-1]:.1%} of the {setup.codebook_size} codes were chosen within {setup.usage_steps} steps, "
        f"where as many latents could touch {possible:.0%} (perplexity {perplexity[-1]:.0f}), and they do not become "
        "more: in another run try "
        f"{_against_collapse(setup)}."
    )


def entropy_falling(history: History, setup: Setup) -> str | None:
    """The entropy of code use was ln 2 higher in some window than it ever is in the last two; the first is no measure.

    A codebook that starts on latents begins with nearly all codes in use, and loses them as the encoder moves.
    """
    window = setup.usage_steps
    rows = [row for row in history.rows if "codebook/perplexity" in row and row["step"] > window]
    now = rows[-1]["step"] if rows else 0
    lately = [row["codebook/perplexity"] for row in rows if row["step"] > now - 2 * window]
    before: dict[int, list[float]] = {}  # by how many windows ago
    for row in rows[: -len(lately)]:
        before.setdefault(int((now - row["step"]) // window), []).append(log(row["codebook/perplexity"]))
    means = {ago: exp(fmean(entropies)) for ago, entropies in before.items()}
    best = max(means, key=means.__getitem__, default=0)
    if len(lately) < FEWEST or not means or max(lately) > FALLEN * means[best]:
        return None
    return (
        f"The codes are used less evenly than before: their perplexity is {lately[-1]:.0f}, and was {means[best]:.0f} "
        f"some {best * window} steps ago, so in another run try {_against_collapse(setup)}."
    )


def adversarial_overwhelming(history: History, setup: Setup) -> str | None:
    """Reconstructions are worse than before the adversary came in, and do not recover.

    taming-transformers #31, #44, #93, TATS #28, latent-diffusion #350; unleashing-transformers #17: expected at first.
    """
    start, recovery = setup.discriminator_start, setup.recovery_steps
    rows = [row for row in history.rows if "train/pixel" in row]
    now = rows[-1]["step"] if rows else 0
    before = [row["train/pixel"] for row in rows if start - recovery < row["step"] <= start]
    after = [row["train/pixel"] for row in rows if row["step"] > now - recovery / 2 and "train/adversarial" in row]
    if now < start + recovery or min(len(before), len(after)) < FEWEST:
        return None
    if fmean(after) < MUCH_WORSE * fmean(before):
        return None
    return (
        f"The adversarial term overwhelms the reconstruction: train/pixel is {fmean(after):.3g}, and was "
        f"{fmean(before):.3g} before the adversary came in at step {start}; unless it recovers by itself try a lower "
        f"loss.discriminator_weight than {setup.discriminator_weight:g}, or a later loss.discriminator_start."
    )


def discriminator_stuck(history: History, setup: Setup) -> str | None:
    """The discriminator does not tell reconstructions from frames.

    taming-transformers #31, #44, #61, #93, magvit2 #16; unleashing-transformers #17: it recovers.
    """
    losses = _discriminator_losses(history, setup, STUCK_UPDATES)
    if not losses or setup.chance is None or min(losses) < NO_BETTER_THAN_CHANCE * setup.chance:
        return None
    often = "trainer.discriminator_every=1, " if setup.discriminator_every > 1 else ""
    return (
        f"The discriminator has been no better than chance for {STUCK_UPDATES} of its steps (train/discriminator "
        f"{losses[0]:.3f}, where guessing gives {setup.chance:.3f}): unless it recovers by itself try "
        f"{often}a higher discriminator_optimizer.lr, or a lower loss.discriminator_weight than "
        f"{setup.discriminator_weight:g}."
    )


def discriminator_winning(history: History, setup: Setup) -> str | None:
    """The discriminator tells them apart without effort, so that its gradient says little of what to mend.

    The other end of the same threads: taming-transformers #31, #93.
    """
    losses = _discriminator_losses(history, setup, WINNING_UPDATES)
    if not losses or setup.chance is None or max(losses) > NEARLY_PERFECT * setup.chance:
        return None
    newest = next(row for row in reversed(history.rows) if "train/discriminator" in row)
    return (
        f"The discriminator wins outright: its loss was {losses[0]:.3f} over {WINNING_UPDATES} of its steps, logits "
        f"{newest['adversarial/logits_real']:.2g} for frames and {newest['adversarial/logits_fake']:.2g} for "
        "reconstructions, so try a lower discriminator_optimizer.lr, a larger trainer.discriminator_every than "
        f"{setup.discriminator_every}, or a later loss.discriminator_start."
    )


def lecam_idle(history: History, setup: Setup) -> str | None:
    """LeCam's term is next to nothing beside the discriminator's loss, of which it is a part."""
    rows = history.last(WINNING_UPDATES * setup.discriminator_every, "adversarial/lecam")
    weight = setup.lecam_weight
    if not rows or weight is None:
        return None
    shares = [weight * row["adversarial/lecam"] / max(row["train/discriminator"], 1e-12) for row in rows]
    if max(shares) > NO_SHARE:
        return None
    return (
        f"LeCam never acts: for {WINNING_UPDATES} steps of the discriminator it was at most {max(shares):.2%} of its "
        "loss, since the logits of either side stay close to each other, so try a higher loss.terms.lecam.weight than "
        f"{weight:g}, or leave the term out."
    )


def adaptive_weight_clamped(history: History, setup: Setup) -> str | None:
    """The adaptive weight would be larger than it may be: a high clamp says that the discriminator's gradient vanished.

    taming-transformers #73, MONAI GenerativeModels #144, dmvae #3, latent-diffusion #176.
    """
    rows = history.last(SOME_STEPS, "adversarial/weight")
    clamp = setup.largest_weight
    if not rows or clamp is None or min(row["adversarial/weight"] for row in rows) < AT_CLAMP * clamp:
        return None
    return (
        f"The adaptive weight was at its clamp for {SOME_STEPS} steps, so the adversarial term has the fixed weight "
        f"{clamp:g}: if loss.balance.max_weight={clamp / setup.discriminator_weight:g} was to be out of reach, the "
        "discriminator's gradient has all but vanished, so try a lower clamp or a later loss.discriminator_start, and "
        "if it was not, raise it to let the weight adapt."
    )


def data_bound(history: History, setup: Setup) -> str | None:
    """The device waits for data, or has its cores taken; not looked at while workers start.

    torchvision #1470, decord #218.
    """
    rows = history.last(SOME_STEPS, "speed/data_wait")
    if not rows or rows[-1]["step"] < 2 * SOME_STEPS:
        return None
    wait = median(row["speed/data_wait"] for row in rows)
    reading = median(row.get("speed/reading", 0.0) for row in rows)
    if wait < MUCH_WAITING and setup.on_cpu and reading >= MUCH_WAITING:
        return (
            f"Reading takes {reading:.0%} of the cores, which the networks lack on a CPU: a small corpus of videos is "
            "decoded once where data.decoded_megabytes is large enough for it; for a large one try data=shards, with "
            "shards that were cut to data.resolution once, or fewer data.workers."
        )
    if wait < MUCH_WAITING:
        return None
    return (
        f"Training waits for data {wait:.0%} of the time: try more data.workers (up to the number of cores), or source "
        "videos that are smaller or have a keyframe every 12 frames."
    )


def validation_diverging(history: History, setup: Setup) -> str | None:  # noqa: ARG001
    """Reconstructions of validation clips become worse, and those of training clips better.

    Small data sets: taming-transformers #107, #257.
    """
    best, *later = history.evaluations or [{}]
    if len(later) < LATER_EVALUATIONS or max(e["psnr"] for e in later) > best["psnr"] - WORSE_DECIBELS:
        return None
    newest = later[-1]
    if newest["pixel"] > BETTER_PIXELS * best["pixel"]:
        return None
    return (
        f"Validation PSNR fell from {best['psnr']:.2f} dB at step {best['step']:.0f} to {newest['psnr']:.2f} dB, while "
        f"train/pixel went on falling from {best['pixel']:.3g} to {newest['pixel']:.3g}: the tokenizer learns its "
        "training clips by heart, so keep the best checkpoint, or try more and more varied videos, data.flip=true "
        "data.crop=random, or a smaller backbone."
    )


def nonfinite_steps(history: Any, setup: Any) -> str | None:  # noqa: ARG001
    """Steps were skipped. Open-Sora-Plan #265, latent-diffusion #176, medicaldiffusion #8, SimVQ #6."""
    skipped = history.rows[-1]["train/skipped_steps"] if history.rows else 0
    if skipped == 0:
        return None
    return (
        f"Losses or gradients were not finite, and {skipped:.0f} of the steps had no effect: if more follow try "
        "trainer.precision=fp32, trainer.clip_gradients=1 or a lower optimizer.lr, and look at the clips that "
        "skipped_batches.jsonl names."
    )


RULES: tuple[Callable[[History, Setup], str | None], ...] = (
    codebook_collapse,
    entropy_falling,
    adversarial_overwhelming,
    discriminator_stuck,
    discriminator_winning,
    lecam_idle,
    adaptive_weight_clamped,
    data_bound,
    validation_diverging,
    nonfinite_steps,
)


class Rows(Stateful, Protocol):
    """What is kept of the rows that were logged."""

    def add(self, step: int, row: Row) -> None:
        """Take one."""


class AdvisorOf(Generic[S]):
    """Looks at each row that is logged, and gives each advice once in a run.

    A part of the checkpoint, so that a resumed run gives what it would have given without the stop.

    Args:
        setup: of the run.
        rules: of its kind.
        history: still empty.
    """

    def __init__(self, setup: S, rules: Sequence[Callable[[Any, S], str | None]], history: Rows) -> None:
        self.setup, self.rules, self.history, self.given = setup, rules, history, list[Advice]()

    def look(self, step: int, row: Row) -> list[Advice]:
        """Take a row, and return the advice that is new.

        Args:
            step: finished ones.
            row: the scalars logged for it, all finite.
        """
        self.history.add(step, row)
        names = {advice.name for advice in self.given}
        rules = [rule for rule in self.rules if rule.__name__ not in names]
        new = [Advice(step, rule.__name__, text) for rule in rules if (text := rule(self.history, self.setup))]
        self.given += new
        return new

    def state_dict(self) -> dict[str, Any]:
        """The history, and what was given."""
        return {"history": self.history.state_dict(), "given": [asdict(advice) for advice in self.given]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; names that are no rule's are left out, since they are shown and a file may be anyone's."""
        if not state:  # of a prior, which had no advisor before
            return
        self.history.load_state_dict(state["history"])
        names = {rule.__name__ for rule in self.rules}
        self.given = [Advice(**advice) for advice in state["given"] if advice["name"] in names]


class Advisor(AdvisorOf[Setup]):
    """The advisor of a tokenizer's run."""

    def __init__(self, setup: Setup) -> None:
        updates = max(STUCK_UPDATES, WINNING_UPDATES) * setup.discriminator_every
        # What the most patient rules look back over; the adversary's effect is judged until twice its time is over.
        super().__init__(setup, RULES, History(max(updates, 3 * setup.recovery_steps, 5 * setup.usage_steps)))


def _against_collapse(setup: Setup) -> str:
    """What the quantizer at hand has against it; of several keys of that name, as in compounds, the first."""
    found = {key.rpartition(".")[2]: key for key in reversed(list(setup.quantizer))}
    tries = []
    entropy = next((name for name in ("diversity_weight", "entropy_weight") if name in found), None)
    if entropy is not None:
        tries.append(f"a higher {found[entropy]} than {setup.quantizer[found[entropy]]}")
    if "revive_after" in found:
        steps = setup.quantizer[found["revive_after"]]
        less = "100" if steps is None else f"smaller than {steps}"
        tries.append(f"{found['revive_after']} {less}, which puts unused codes back onto latents")
    elif "codebook_size" in found and not tries:
        tries.append("model=emavq, whose model.quantizer.revive_after puts unused codes back onto latents")
    if "codebook_size" in found:
        tries.append(f"a smaller {found['codebook_size']}")
    return ", or ".join([*tries, "a lower optimizer.lr"])


def _growth(values: list[float]) -> float:
    """The mean of the later half, to that of the earlier."""
    half = len(values) // 2
    return fmean(values[-half:]) / fmean(values[:half])


def _discriminator_losses(history: History, setup: Setup, updates: int) -> list[float]:
    """Its mean over so many of the discriminator's steps, and over the last few; nothing if there were fewer."""
    rows = history.last(updates * setup.discriminator_every, "train/discriminator")
    losses = [row["train/discriminator"] for row in rows]
    return [fmean(losses), fmean(losses[-FEWEST:])] if losses else []
