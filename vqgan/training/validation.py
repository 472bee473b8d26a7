"""What a run measures and shows of its reconstructions at each evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder, evaluating
from vqgan.files.writing import replace_text
from vqgan.frames import Clips, Frames, to_clips, to_frames
from vqgan.loggers import Rows
from vqgan.measures import measure
from vqgan.quantizers.usage import count_by_depth, perplexity
from vqgan.runtime.collectives import gather, share_of, sum_over_processes
from vqgan.runtime.process import Process
from vqgan.video.pictures import write_middle_frames, write_moving, write_pictures

MOST_RANKS = 128  # of a codebook's codes, whose shares are recorded


@dataclass(eq=False)
class Evaluation:
    """What was measured on validation clips, on the CPU."""

    metrics: dict[str, float]  # by their names in the panel `validation/`
    counts: Int[Tensor, "depth codes"]  # how often each code was chosen, of those of a position apart
    psnr: Float[Tensor, "batch time"]  # dB, of each frame

    @property
    def psnr_of_clips(self) -> Float[Tensor, "batch"]:
        """Means over the frames of each clip."""
        return self.psnr.mean(1)

    def worst_moment(self) -> tuple[int, int]:
        """The numbers of the clip and of its frame with the lowest PSNR of all."""
        clip, frame = divmod(int(self.psnr.argmin()), self.psnr.shape[1])
        return clip, frame

    def extremes(self, most: int) -> tuple[list[int], list[int]]:
        """The numbers of at most so many clips with the lowest and the highest PSNR, the most extreme ones first."""
        order: list[int] = self.psnr_of_clips.argsort(stable=True).tolist()
        return order[:most], order[::-1][:most]

    def code_use(self) -> dict[str, Any]:
        """How codes were used, as it is recorded.

        Returns:
            `codebook_size`; `dead`, the codes that were never chosen; `perplexity`; and `shares`: of all choices,
            those of the most used code, the second …, the least used one, at evenly spaced ranks if there are many.
        """
        counts = self.counts.sum(0)
        size = len(counts)
        ranks = torch.linspace(0, size - 1, min(size, MOST_RANKS), dtype=torch.float64).round().long()
        shares = counts.sort(descending=True).values[ranks] / counts.sum()
        return {
            "codebook_size": size,
            "dead": int((counts == 0).sum()),
            "perplexity": self.metrics["validation/perplexity"],
            "shares": [float(f"{share:.5g}") for share in shares.tolist()],
        }


@torch.no_grad()
def evaluate(autoencoder: Autoencoder, clips: Clips, batch_size: int, perceptual: nn.Module | None) -> Evaluation:
    """Measure reconstructions of clips, several processes each a share of them; changes no state.

    Returns:
        The same in each process: as metrics what `measure` finds, as `validation/psnr` …, all means over frames;
        `validation/perplexity` and `validation/usage` of the codebook over all clips together, and the bits that its
        codes need, `validation/bits_per_pixel`, if each is written as shortly as its share of them allows.
    """
    quantizer, device = autoencoder.quantizer, autoencoder.last_layer.device
    measured: dict[int, dict[str, Tensor]] = {}  # by the number of the batch
    counts = torch.zeros(quantizer.depth, quantizer.codebook_size, dtype=torch.int64, device=device)
    with evaluating(autoencoder):
        for number, group in share_of(clips.split(batch_size)):
            frames = to_frames(group.to(device))
            output = autoencoder(frames)
            of_frames = measure(frames, output.reconstruction.clamp(-1, 1), perceptual)
            measured[number] = {name: values.cpu() for name, values in of_frames.items()}
            counts += count_by_depth(output.indices, *reversed(counts.shape))
    counts = sum_over_processes(counts)
    batches = [of_frames for _, of_frames in sorted(item for part in gather(measured) for item in part.items())]
    per_frame = {name: torch.cat([of_frames[name] for of_frames in batches]) for name in batches[0]}
    metrics = {f"validation/{name}": float(values.mean()) for name, values in per_frame.items()}
    # Of several codes a position: the geometric mean, whose logarithm is the mean number of nats a code.
    metrics["validation/perplexity"] = float(torch.stack([perplexity(part) for part in counts]).log().mean().exp())
    metrics["validation/usage"] = float((counts > 0).float().mean())
    bits = math.log2(metrics["validation/perplexity"])  # a code
    metrics["validation/bits_per_pixel"] = bits * int(counts.sum()) / clips[..., 0].numel()
    return Evaluation(metrics, counts.cpu(), per_frame["psnr"])


def scalars_measured(perceptual: nn.Module | None) -> list[str]:
    """The names of what `evaluate` finds, for those who must know before it does."""
    names = ["psnr", "psnr_mean_colour", "ssim", *([] if perceptual is None else ["lpips"])]
    names += ["perplexity", "usage", "bits_per_pixel"]
    return [f"validation/{name}" for name in names]


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, clips: Clips, batch_size: int) -> Frames:
    """Reconstructions of clips, on the CPU, in [-1, 1]; changes no state."""
    device = autoencoder.last_layer.device
    with evaluating(autoencoder):
        parts = [autoencoder(to_frames(group.to(device))).reconstruction for group in clips.split(batch_size)]
    return torch.cat([part.clamp(-1, 1).cpu() for part in parts])


EXTREMES = 4  # clips that are shown as the worst, and as the best


@dataclass(kw_only=True, eq=False)
class Validation:
    """Clips that are never trained on, and what is kept of them in the run folder.

    Args:
        clips: uint8 (batch, time, height, width, rgb).
        sources: the file of each.
        videos: the video of each.
        seconds: when each frame of each is shown in its file; None where that is not known.
        batch_size: clips at once.
        perceptual: the network of LPIPS; None if the loss has none.
        pictures: clips to show.
        folder: of the run.
        process: all of them measure; the first one shows and records.
    """

    clips: Clips
    sources: Sequence[str]
    videos: Sequence[str]
    seconds: Sequence[Sequence[float] | None]
    batch_size: int
    perceptual: nn.Module | None
    pictures: int
    folder: Path
    process: Process

    def __post_init__(self) -> None:
        self.code_use = Rows(self.folder / "codebook.jsonl")

    def measure(self, autoencoder: Autoencoder) -> Evaluation:
        """Measure reconstructions of all clips; changes no state."""
        return evaluate(autoencoder, self.clips, self.batch_size, self.perceptual)

    def show(self, autoencoder: Autoencoder, step: int, evaluation: Evaluation) -> dict[str, Path]:
        """Write pictures of some clips, spread over all, and of the worst and the best; and the former's every frame.

        Returns:
            The files of the former, under the names by which they are logged. The latter are for the report alone: the
            names of files that stand beside them may not leave the machine.

        Raises:
            StorageError: they cannot be written.
        """
        if not self.process.is_first:
            return {}
        numbers = [*range(0, len(self.clips), -(-len(self.clips) // self.pictures))]
        made = to_clips(reconstruct(autoencoder, self.clips[numbers], self.batch_size))
        files = write_pictures(self._pictures, step, self.clips[numbers], made)
        ranking = {"step": step, **self._show_extremes(autoencoder, evaluation)}
        if self.clips.shape[1] > 1:
            ranking |= self._show_moving(autoencoder, evaluation, dict(zip(numbers, made)))
        replace_text(self._pictures / "ranking.json", json.dumps(ranking))
        return files

    def record(self, step: int, evaluation: Evaluation) -> None:
        """Add a row to `codebook.jsonl`.

        Raises:
            StorageError: it cannot be written.
        """
        if self.process.is_first:
            self.code_use.append({"step": step, **evaluation.code_use()})

    def state_dict(self) -> dict[str, Any]:
        """How many rows there are."""
        return self.code_use.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop rows that come again."""
        if self.process.is_first:
            self.code_use.load_state_dict(state)

    @property
    def _pictures(self) -> Path:
        return self.folder / "reconstructions"

    def _show_extremes(self, autoencoder: Autoencoder, evaluation: Evaluation) -> dict[str, Any]:
        middle = self.clips.shape[1] // 2
        ranking: dict[str, Any] = {}
        for name, numbers in zip(("worst", "best"), evaluation.extremes(EXTREMES)):
            # The whole clip, since a frame is made of those before it too.
            reconstructions = reconstruct(autoencoder, self.clips[numbers], self.batch_size)
            shown, made = (clips[:, middle : middle + 1] for clips in (self.clips[numbers], to_clips(reconstructions)))
            write_middle_frames(self._pictures / f"{name}.png", shown, made)
            ranking[name] = [self._described(n, evaluation) for n in numbers]
        return ranking

    def _show_moving(
        self, autoencoder: Autoencoder, evaluation: Evaluation, made: dict[int, UInt8[Tensor, "time h w rgb"]]
    ) -> dict[str, Any]:
        """Every frame of the clip with the worst moment, and of some that are reconstructed already."""
        worst, frame = evaluation.worst_moment()
        if worst not in made:
            made[worst] = to_clips(reconstruct(autoencoder, self.clips[[worst]], self.batch_size))[0]
        numbers = [worst, *(n for n in made if n != worst)]
        for place, n in enumerate(numbers):
            write_moving(self._pictures / f"moving-{place}.webp", self.clips[n], made[n])
        times = self.seconds[worst]
        moment = {
            "frame": frame,
            "psnr": round(float(evaluation.psnr[worst, frame]), 3),
            "second": None if times is None else round(float(times[frame]), 3),
        }
        return {"moving": [self._described(n, evaluation) for n in numbers], "moment": moment}

    def _described(self, n: int, evaluation: Evaluation) -> dict[str, Any]:
        return {"clip": n, "source": self.sources[n], "psnr": round(float(evaluation.psnr_of_clips[n]), 3)}
