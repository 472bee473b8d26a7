"""The training loop: `run` → `step` → `update_autoencoder` / `update_discriminator`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.autoencoder import Autoencoder
from vqgan.checkpoint import Checkpoints, Stateful
from vqgan.data import Loader
from vqgan.device import compile_networks, find_device
from vqgan.errors import DivergedError, StoppedError, check
from vqgan.evaluation import evaluate, reconstruct
from vqgan.frames import to_clips, to_frames
from vqgan.loggers import Loggers
from vqgan.losses import VQGANLoss
from vqgan.pictures import write_pictures
from vqgan.schedules import Schedule
from vqgan.signals import StopSignals
from vqgan.terminal import Clock, Progress

Frames = Float[Tensor, "frames rgb height width"]
Clips = UInt8[Tensor, "batch time height width rgb"]


@dataclass(kw_only=True, frozen=True)
class Settings:
    """How a run is trained: the values of `conf/trainer`.

    Args:
        steps: optimizer steps of the whole run.
        discriminator_every: the discriminator steps on every so-manieth step, from `loss.discriminator_start` on.
        accumulate: micro-batches per step; their mean gradient is one step's.
        clip_gradients: largest norm of each player's gradient; null for no clipping.
        precision: of the networks, `fp32` or `bf16` (autocast); quantizer and losses are always float32.
        compile: compile encoder, decoder and discriminator; needs a C++ compiler.
        device: `auto` (cuda, mps or cpu, the first there is) or a torch device.
        log_every: steps between rows of `metrics.jsonl`.
        evaluate_every: steps between evaluations on the validation clips.
        pictures: validation clips to show at each evaluation.
        checkpoint_every: steps between checkpoints; one is also written when validation is best, and at the end.
        usage_steps: a code counts as used if it was chosen within so many steps.
        keep: so many of the newest checkpoints stay, and the best.
    """

    steps: int
    discriminator_every: int
    accumulate: int
    clip_gradients: float | None
    precision: Literal["fp32", "bf16"]
    compile: bool
    device: str
    log_every: int
    evaluate_every: int
    pictures: int
    checkpoint_every: int
    usage_steps: int
    keep: int

    def __post_init__(self) -> None:
        for key in ("steps", "discriminator_every", "accumulate", "log_every", "evaluate_every", "checkpoint_every",
                    "pictures", "usage_steps", "keep"):  # fmt: skip
            check(getattr(self, key) > 0, key, getattr(self, key), "positive")
        limit = self.clip_gradients
        check(limit is None or limit > 0, "clip_gradients", limit, "positive or null")
        find_device(self.device)


@dataclass(kw_only=True, eq=False)
class Trainer:
    """Trains an autoencoder against a discriminator.

    Args:
        settings: steps, cadences, precision, device.
        autoencoder: moved to the device.
        discriminator: None for a run that is never adversarial.
        loss: both players' losses.
        autoencoder_optimizer: of the autoencoder's parameters.
        discriminator_optimizer: of the discriminator's.
        schedule: the factor of both learning rates.
        loader: the training batches.
        validation: clips to validate on, uint8 (batch, time, height, width, rgb).
        loggers: what takes the numbers.
        folder: of the run.
        seed: of every random choice.
    """

    settings: Settings
    autoencoder: Autoencoder
    discriminator: nn.Module | None
    loss: VQGANLoss
    autoencoder_optimizer: Optimizer
    discriminator_optimizer: Optimizer | None
    schedule: Schedule
    loader: Loader
    validation: Tensor
    loggers: Loggers
    folder: Path
    seed: int

    latest: dict[str, Any] = field(init=False, default_factory=dict)  # of each metric, whichever step it is from
    last_validation: dict[str, float] = field(init=False, default_factory=dict)
    done: int = field(init=False, default=0)  # finished steps

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.settings.keep)
        self.hardware = find_device(self.settings.device)
        for network in (self.autoencoder, self.discriminator, self.loss):
            if network is not None:
                network.to(self.hardware).train()
        if self.settings.compile:
            compile_networks(self.autoencoder, self.discriminator)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the last step.

        Raises:
            StoppedError: a signal came; the run is saved up to its last finished step.
            DivergedError: a loss is not finite; the newest checkpoint is from before.
        """
        self.done = self.checkpoints.load_latest(**self.state())
        with StopSignals() as stop, Progress(self.done, self.settings.steps) as progress:
            if self.done >= self.settings.steps:
                print(f"Nothing left to train: the run has {self.done} steps, and trainer.steps={self.settings.steps}.")
            if self.done == 0:
                self._log(progress, self._validation_row())
            batches = self.loader.batches(first=self.done * self.settings.accumulate)
            clock = Clock()
            while self.done < self.settings.steps:
                clips = clock.wait(lambda: [next(batches) for _ in range(self.settings.accumulate)])
                self.latest |= self.step(self.done, clips)
                self.done += 1
                clock.count(sum(batch.shape[0] * batch.shape[1] for batch in clips))
                row = self._train_row() | clock.read() if self._is_due(self.settings.log_every) else {}
                row |= self._validation_row() if self._is_due(self.settings.evaluate_every) else {}
                score = row.get("validation/psnr")
                improved = score is not None and score > self.checkpoints.best_score()
                progress.advance()
                if row:
                    self._log(progress, row)
                if improved or stop.requested or self._is_due(self.settings.checkpoint_every):
                    self._check_finite(dict(self.autoencoder.state_dict()))
                    self.checkpoints.save(self.done, score, **self.state())
                if row:
                    clock.restart()
                if stop.requested and self.done < self.settings.steps:
                    raise StoppedError(
                        f"Stopped by {stop.name} after step {self.done}; everything is saved. "
                        f"Go on with: python train.py resume={self.folder}"
                    )
            self.last_validation = self.last_validation or self._validation_row()  # of a run that was done before

    def step(self, step: int, clips: Sequence[Clips]) -> dict[str, Tensor]:
        """One step of both players, on one forward pass of the autoencoder.

        Args:
            step: counted from 0; together with the seed it decides every random choice.
            clips: one batch per micro-batch.

        Returns:
            Detached scalars on the device, averaged over micro-batches.
        """
        torch.manual_seed((self.seed << 32) + step)
        micro_batches = [to_frames(batch.to(self.hardware, non_blocking=True)) for batch in clips]
        reconstructions, metrics = self.update_autoencoder(step, micro_batches)
        if self.loss.is_adversarial(step) and step % self.settings.discriminator_every == 0:
            metrics |= self.update_discriminator(step, micro_batches, reconstructions)
        return metrics

    def update_autoencoder(self, step: int, micro_batches: Sequence[Frames]) -> tuple[list[Frames], dict[str, Tensor]]:
        """The generator's side; returns the reconstructions, which the discriminator is to see, and metrics."""
        self._set_learning_rate(self.autoencoder_optimizer, step)
        reconstructions, metrics = [], []
        for frames in micro_batches:
            with self.autocast():
                output = self.autoencoder(frames)
                loss = self.loss.autoencoder_loss(frames, output, self.discriminator, self.autoencoder.last_layer, step)
            (loss.total / len(micro_batches)).backward()
            reconstructions.append(output.reconstruction.detach())
            metrics.append(loss.metrics | {"codebook/perplexity": output.perplexity.detach()})
        self._clip(self.autoencoder)
        self.autoencoder_optimizer.step()
        self.autoencoder_optimizer.zero_grad(set_to_none=True)
        self.autoencoder.quantizer.update()
        return reconstructions, _mean(metrics)

    def update_discriminator(
        self, step: int, micro_batches: Sequence[Frames], reconstructions: Sequence[Frames]
    ) -> dict[str, Tensor]:
        """The discriminator's side, on the reconstructions that the generator was judged by."""
        assert self.discriminator is not None
        assert self.discriminator_optimizer is not None
        self._set_learning_rate(self.discriminator_optimizer, step)
        metrics = []
        for frames, reconstruction in zip(micro_batches, reconstructions):
            with self.autocast():
                loss = self.loss.discriminator_loss(frames, reconstruction, self.discriminator, step)
            (loss.total / len(micro_batches)).backward()
            metrics.append(loss.metrics)
        self._clip(self.discriminator)
        self.discriminator_optimizer.step()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        return _mean(metrics)

    def state(self) -> dict[str, Stateful]:
        """All that a checkpoint holds; whatever else there is follows from the config and the step."""
        parts: dict[str, Stateful] = {
            "autoencoder": self.autoencoder,
            "autoencoder_optimizer": self.autoencoder_optimizer,
            "metrics": self,
            "loggers": self.loggers,
        }
        if self.discriminator is not None and self.discriminator_optimizer is not None:
            parts |= {"discriminator": self.discriminator, "discriminator_optimizer": self.discriminator_optimizer}
        return parts

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the networks."""
        return torch.autocast(self.hardware.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def state_dict(self) -> dict[str, Any]:
        """The latest value of each metric, so that a resumed run's first row has all of them."""
        return {name: float(value) for name, value in self.latest.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the metrics back."""
        self.latest = dict(state)

    def _set_learning_rate(self, optimizer: Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * self.schedule(step)

    def _clip(self, network: nn.Module) -> None:
        if self.settings.clip_gradients is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip_gradients)

    def _is_due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.settings.steps

    def _train_row(self) -> dict[str, float]:
        self._check_finite(self.latest)
        row = self.state_dict()
        row["codebook/usage"] = float(self.autoencoder.quantizer.usage(min(self.settings.usage_steps, self.done)))
        optimizers = {"autoencoder": self.autoencoder_optimizer, "discriminator": self.discriminator_optimizer}
        for name, optimizer in optimizers.items():
            if optimizer is not None:
                row[f"learning_rate/{name}"] = float(optimizer.param_groups[0]["lr"])
        return row

    def _check_finite(self, tensors: Mapping[str, Any]) -> None:
        broken = [name for name, value in tensors.items() if not torch.isfinite(torch.as_tensor(value)).all()]
        if broken:
            raise DivergedError(
                f"Training diverged: at step {self.done} {', '.join(broken[:5])} is not finite. The newest checkpoint "
                f"in {self.checkpoints.folder} is from before. Try a lower optimizer.lr, trainer.clip_gradients=1, or "
                "trainer.precision=fp32."
            )

    def _validation_row(self) -> dict[str, float]:
        with self.autocast():
            row = evaluate(self.autoencoder, self.validation, self.loader.batch_size, self.loss.perceptual)
        self.last_validation = row
        return row

    def _log(self, progress: Progress, row: dict[str, float]) -> None:
        files = {}
        if "validation/psnr" in row:
            shown = self.validation[:: -(-len(self.validation) // self.settings.pictures)]  # from all of the data
            with self.autocast():
                reconstructions = reconstruct(self.autoencoder, shown, self.loader.batch_size)
            files = write_pictures(
                self.folder / "reconstructions", self.done, shown, to_clips(reconstructions, shown.shape[1])
            )
        progress.show(self.done, row)
        self.loggers.log(self.done, row, files)


def _mean(metrics: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([m[name] for m in metrics]).mean() for name in metrics[0]}
