"""What a run measures and shows of its reconstructions at each evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder
from vqgan.distributed import Process
from vqgan.evaluation import Evaluation, evaluate, reconstruct
from vqgan.frames import to_clips
from vqgan.loggers import Rows
from vqgan.pictures import write_middle_frames, write_pictures
from vqgan.run_folder import replace_text

EXTREMES = 4  # clips that are shown as the worst, and as the best


@dataclass(kw_only=True, eq=False)
class Validation:
    """Clips that are never trained on, and what is kept of them in the run folder.

    Args:
        clips: uint8 (batch, time, height, width, rgb).
        sources: the file of each.
        videos: the video of each.
        batch_size: clips at once.
        perceptual: the network of LPIPS; None if the loss has none.
        pictures: clips to show.
        folder: of the run.
        process: all of them measure; the first one shows and records.
    """

    clips: UInt8[Tensor, "batch time height width rgb"]
    sources: Sequence[str]
    videos: Sequence[str]
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
        """Write pictures of some clips, spread over all, and of the worst and the best.

        Returns:
            The files of the former, under the names by which they are logged. The latter are for the report alone: the
            names of files that stand beside them may not leave the machine.

        Raises:
            StorageError: they cannot be written.
        """
        if not self.process.is_first:
            return {}
        shown = self.clips[:: -(-len(self.clips) // self.pictures)]
        reconstructions = reconstruct(autoencoder, shown, self.batch_size)
        files = write_pictures(self._pictures, step, shown, to_clips(reconstructions, shown.shape[1]))
        self._show_extremes(autoencoder, step, evaluation)
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

    def _show_extremes(self, autoencoder: Autoencoder, step: int, evaluation: Evaluation) -> None:
        middle = self.clips.shape[1] // 2
        ranking: dict[str, Any] = {"step": step}
        for name, numbers in zip(("worst", "best"), evaluation.extremes(EXTREMES)):
            shown = self.clips[numbers, middle : middle + 1]
            reconstructions = reconstruct(autoencoder, shown, self.batch_size)
            write_middle_frames(self._pictures / f"{name}.png", shown, to_clips(reconstructions, 1))
            ranking[name] = [
                {"clip": n, "source": self.sources[n], "psnr": round(float(evaluation.psnr_of_clips[n]), 3)}
                for n in numbers
            ]
        replace_text(self._pictures / "ranking.json", json.dumps(ranking))
