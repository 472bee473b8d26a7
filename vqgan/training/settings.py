"""How a run is trained."""

from __future__ import annotations

from dataclasses import dataclass

from vqgan.errors import check
from vqgan.runtime.device import Precision, find_device
from vqgan.runtime.processor import ChannelsLast, multiplies_bf16
from vqgan.training.freezing import PARTS


@dataclass(kw_only=True, frozen=True)
class LoopSettings:
    """What the loop needs to know, whatever is trained.

    Args:
        steps: optimizer steps of the whole run.
        accumulate: micro-batches per step; their mean gradient is one step's. What is measured over a batch (batch
            norms, the adaptive weight, perplexity, start and revival of codes) is of each micro-batch.
        clip_gradients: largest norm of each player's gradient; null for no clipping.
        weight_average: relative width of an average of the trained network's weights, in (0, 0.288): what is measured,
            shown, exported and used of the run is the average then; 0.05 to 0.1 for long runs; null for none.
        precision: of the networks, the perceptual one too: `fp32`, `bf16` (autocast) or `tf32` (convolutions on NVIDIA
            GPUs round to 10 bits); the quantizer, what the losses add up and all that validation measures are always
            float32.
        allow_slow_precision: let a CPU without bfloat16 products emulate `bf16`, many times slower than `fp32`.
        compile: compile the networks; needs a C++ compiler.
        device: `auto` (cuda, mps or cpu, the first there is) or a torch device.
        log_every: steps between rows of `metrics.jsonl`.
        evaluate_every: steps between evaluations on the validation clips.
        checkpoint_every: steps between checkpoints; one is also written when validation is best, and at the end.
        keep: so many of the newest checkpoints stay, and the best.
        max_skipped_in_a_row: steps whose loss or gradient is not finite are skipped; one more in a row ends the run.
        max_skipped_fraction: of the last 1000 steps; a larger share of skipped ones ends the run.
    """

    steps: int
    accumulate: int
    clip_gradients: float | None
    weight_average: float | None
    precision: Precision
    allow_slow_precision: bool
    compile: bool
    device: str
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    keep: int
    max_skipped_in_a_row: int
    max_skipped_fraction: float

    def __post_init__(self) -> None:
        for key in ("steps", "accumulate", "log_every", "evaluate_every", "checkpoint_every", "keep"):
            check(getattr(self, key) > 0, key, getattr(self, key), "positive")
        row, share = self.max_skipped_in_a_row, self.max_skipped_fraction
        check(row >= 0, "max_skipped_in_a_row", row, "at least 0")
        check(0 <= share <= 1, "max_skipped_fraction", share, "in [0, 1]")
        limit = self.clip_gradients
        check(limit is None or limit > 0, "clip_gradients", limit, "positive or null")
        width = self.weight_average
        check(width is None or 0 < width < 0.288, "weight_average", width, "in (0, 0.288) or null")
        device = find_device(self.device)
        able = self.precision != "bf16" or self.allow_slow_precision or multiplies_bf16(device)
        instead = "fp32: this CPU has no products of bf16 and would emulate them, many times slower"
        check(able, "precision", self.precision, f"{instead} (trainer.allow_slow_precision=true insists)")


@dataclass(kw_only=True, frozen=True)
class Settings(LoopSettings):
    """How a tokenizer is trained: the values of `conf/trainer`.

    Args:
        discriminator_every: steps from one of the discriminator's to its next, from `loss.discriminator_start` on.
        picture_share: share of the steps, in [0, 1), that see the frames of their clips as pictures, which are clips of
            one frame: so that a tokenizer of clips stays one of pictures. Which steps follows from the seed.
        clip_lengths: frames of the clips that steps see, none more than `data.clip_frames`: each step draws one of
            them, by the seed, and cuts its clips into as many of that length as they hold; empty: whole clips.
        freeze: parts of the autoencoder that stay as they are: `encoder`, `quantizer`, `decoder`. With the first two
            frozen codes keep their meaning, so that tokens of the run named by `init_from` stay valid.
        channels_last: keep weights and activations with the channels innermost; `auto`: where that is faster.
        activation_checkpointing: compute the activations of each residual block a second time in the backward pass
            instead of keeping them: about a third more time for a fraction of the memory, for 512 pixels and above.
        pictures: validation clips to show at each evaluation.
        usage_steps: a code counts as used if it was chosen within so many steps.
    """

    discriminator_every: int
    picture_share: float
    clip_lengths: list[int]
    freeze: list[str]
    channels_last: ChannelsLast
    activation_checkpointing: bool
    pictures: int
    usage_steps: int

    def __post_init__(self) -> None:
        for key in ("discriminator_every", "pictures", "usage_steps"):
            check(getattr(self, key) > 0, key, getattr(self, key), "positive")
        super().__post_init__()
        check(0 <= self.picture_share < 1, "picture_share", self.picture_share, "in [0, 1)")
        positive = all(length > 0 for length in self.clip_lengths)
        check(positive, "clip_lengths", self.clip_lengths, "a list of positive numbers of frames")
        known = all(part in PARTS for part in self.freeze)
        check(known, "freeze", self.freeze, f"a list of some of {', '.join(PARTS)}")
