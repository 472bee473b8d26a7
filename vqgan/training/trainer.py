"""The training loop: `run` → `step` → gradients of both players → `update_autoencoder` / `update_discriminator`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.optim import Optimizer

from vqgan.autoencoder import Autoencoder
from vqgan.data import Loader
from vqgan.errors import StoppedError, StorageError
from vqgan.frames import to_frames
from vqgan.loggers import Loggers
from vqgan.losses import Loss, VQGANLoss
from vqgan.reports.page import LiveReport
from vqgan.runs.checkpoint import Checkpoints, Stateful, size_of
from vqgan.runs.provenance import Provenance, write_environment
from vqgan.runtime.collectives import from_first, gather, mean_over_processes
from vqgan.runtime.device import (
    SMALLER_RUN,
    find_device,
    is_busy,
    is_compiling_failed,
    is_out_of_memory,
    keep_layout,
    keep_values,
    memory_to_begin,
    on_device,
    out_of_memory,
    prepare,
    require_compiler,
    tune,
)
from vqgan.runtime.gradients import GradientAverage
from vqgan.runtime.process import ALONE, Process
from vqgan.runtime.signals import StopRequested, StopSignals
from vqgan.training.advice import Advisor
from vqgan.training.finite import Buffers, SkippedSteps, gradient_norm, step_if
from vqgan.training.outcomes import Outcomes
from vqgan.training.progress import Clock, Progress
from vqgan.training.schedules import Schedule
from vqgan.training.settings import Settings
from vqgan.training.validation import Evaluation, Validation

Frames = Float[Tensor, "frames rgb height width"]
Clips = UInt8[Tensor, "batch time height width rgb"]
RANKS_APART = 2**26  # steps between the random numbers of one process and those of the next


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
        validation: what is measured and shown at each evaluation.
        loggers: what takes the numbers.
        advisor: what reads them for signs of trouble.
        provenance: software, hardware, data and config, kept with each checkpoint.
        report: the page that shows the run as it goes.
        folder: of the run.
        seed: of every random choice.
        process: which of several this is, each of which computes a share of every step.
    """

    settings: Settings
    autoencoder: Autoencoder
    discriminator: nn.Module | None
    loss: VQGANLoss
    autoencoder_optimizer: Optimizer
    discriminator_optimizer: Optimizer | None
    schedule: Schedule
    loader: Loader
    validation: Validation
    loggers: Loggers
    advisor: Advisor
    provenance: Provenance
    report: LiveReport
    folder: Path
    seed: int
    process: Process = ALONE

    last_validation: dict[str, float] = field(init=False, default_factory=dict)
    done: int = field(init=False, default=0)  # finished steps
    shown: int = field(init=False, default=-1)  # steps whose row is logged
    saved: int = field(init=False, default=-1)  # steps in the newest checkpoint

    def __post_init__(self) -> None:
        skipped = SkippedSteps(self.settings.max_skipped_in_a_row, self.settings.max_skipped_fraction)
        self.outcomes = Outcomes(skipped, self.loader, self.settings.accumulate, self.folder, self.process.is_first)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.settings.keep)
        self.hardware = find_device(self.settings.device)
        tune(self.hardware, self.settings.precision)
        for network in (self.autoencoder, self.discriminator, self.loss):
            if network is not None:
                prepare(network, self.hardware, self.settings.channels_last)
        for optimizer in (self.autoencoder_optimizer, self.discriminator_optimizer):
            if optimizer is not None:
                keep_layout(optimizer)
                keep_values(optimizer)
        self.buffers = Buffers(self._networks())
        self.averages = [
            GradientAverage(network.parameters(), self.settings.accumulate) for network in self._networks()
        ]
        self.autoencoder.checkpoint_activations(self.settings.activation_checkpointing)
        if self.settings.compile:
            require_compiler()
            for network in (self.autoencoder, self.discriminator, self.loss.perceptual):
                if network is not None:
                    network.compile()

    def run(self, stop: StopSignals) -> None:
        """Train from where `resume` has brought it to the last step.

        Args:
            stop: open already; says when to stop.

        Raises:
            StoppedError: a signal came; the run is saved up to its last finished step.
            DivergedError: too many losses or gradients are not finite; the newest checkpoint is from before.
            StorageError: a file cannot be written, or memory ran out; the newest checkpoint is good.
        """
        first = self.process.is_first
        if first:
            write_environment(self.folder / "environment.json", self.provenance.environment)
        with Progress(self.done, self.settings.steps, first) as progress, self._saving():
            try:
                self._train(stop, progress)
                self.last_validation = self.last_validation or self._evaluate().metrics  # of a run that was done before
            except StopRequested as signal:
                self._look()
                self._save(None)
                self.checkpoints.finish()
                from_first(None)  # the others wait for it, since torchrun ends all when one has ended
                raise self._stopped(f"Stopped by {signal} after step {self.done}; everything is saved.") from None
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise out_of_memory(self.hardware, self.validation.clips.shape, self.loader.share) from error

    def _train(self, stop: StopSignals, progress: Progress) -> None:
        clock = Clock()
        self._after_step(stop, progress, clock)  # what a stop in the middle of it has left to do
        first = self.done * self.settings.accumulate
        with contextlib.closing(self.loader.batches(first)) as batches:
            while self.done < self.settings.steps:
                with stop.at_once():
                    clips = clock.wait(
                        lambda: [next(batches) for _ in range(self.settings.accumulate)], lambda: is_busy(self.hardware)
                    )
                try:
                    self.step(self.done, clips)
                except RuntimeError as error:
                    if not (stop.requested and is_compiling_failed(error)):
                        raise
                    if self.process.count > 1:  # the others may wait within this step: no agreement comes any more
                        raise self._stopped(
                            f"Stopped by {stop.name} while networks were compiled; the newest checkpoint is good."
                        ) from None
                    # Ctrl-C ends the compiler too. Of all that is saved only buffers can have moved: parameters do when
                    # both players have their gradients, and nothing is compiled any more.
                    self.buffers.restore_unless(torch.tensor(False, device=self.hardware))
                    stop.check()
                self.done += 1
                clock.count(self.process.count * sum(batch.shape[0] * batch.shape[1] for batch in clips))
                progress.advance()
                self._after_step(stop, progress, clock)

    def step(self, step: int, clips: Sequence[Clips]) -> dict[str, Tensor]:
        """One step of both players, on one forward pass each; without effect if it is not finite.

        Nothing here waits for the device: whether the step was finite is found out when its numbers are read.

        Args:
            step: counted from 0; together with the seed it decides every random choice.
            clips: one batch per micro-batch, of which this process has its share.

        Returns:
            Detached scalars on the device, averaged over micro-batches and processes.
        """
        # Masks of dropout differ between processes, as clips do; what must be alike in all is drawn by the first.
        torch.manual_seed((self.seed << 32) + self.process.rank * RANKS_APART + step)
        self.buffers.remember()
        adversarial = self.loss.is_adversarial(step) and step % self.settings.discriminator_every == 0
        parts = []
        for batch in clips:
            frames = to_frames(on_device(batch, self.hardware))
            reconstruction, loss = self.autoencoder_gradients(step, frames, len(clips))
            parts.append(loss.metrics)
            if adversarial:
                parts[-1] |= self.discriminator_gradients(step, frames, len(clips), reconstruction, loss.logits)
        metrics = mean_of(parts)
        for average in self.averages:
            average.finish()
        finite = self._is_finite(metrics, adversarial)
        self.update_autoencoder(step, finite)
        if adversarial:
            self.update_discriminator(step, finite)
        self.buffers.restore_unless(finite)
        self.outcomes.add(step, finite, metrics)
        return metrics

    def autoencoder_gradients(self, step: int, frames: Frames, parts: int) -> tuple[Frames, Loss]:
        """The generator's side of one of `parts` micro-batches; also returns the reconstruction, without its graph."""
        with self.autocast():
            output = self.autoencoder(frames)
            loss = self.loss.autoencoder_loss(frames, output, self.discriminator, self.autoencoder.last_layer, step)
        (loss.total / parts).backward()
        loss.metrics |= {"train/total": loss.total.detach(), "codebook/perplexity": output.perplexity.detach()}
        return output.reconstruction.detach(), loss

    def discriminator_gradients(
        self, step: int, frames: Frames, parts: int, reconstruction: Frames, logits: Tensor | None
    ) -> dict[str, Tensor]:
        """The discriminator's side, on the reconstruction and the logits that the generator was judged by."""
        assert self.discriminator is not None
        with self.autocast():
            loss = self.loss.discriminator_loss(frames, reconstruction, self.discriminator, step, logits=logits)
        (loss.total / parts).backward(inputs=list(self.discriminator.parameters()))
        return loss.metrics | {"train/discriminator": loss.total.detach()}

    def update_autoencoder(self, step: int, finite: Tensor) -> None:
        """Move the autoencoder's parameters by their gradients, and the codebook where it learns without."""
        self._update(self.autoencoder, self.autoencoder_optimizer, step, finite)
        self.autoencoder.quantizer.update()

    def update_discriminator(self, step: int, finite: Tensor) -> None:
        """Move the discriminator's parameters by their gradients."""
        assert self.discriminator is not None
        assert self.discriminator_optimizer is not None
        self._update(self.discriminator, self.discriminator_optimizer, step, finite)

    def state(self) -> dict[str, Stateful]:
        """All that a checkpoint holds; whatever else there is follows from the config and the step."""
        parts: dict[str, Stateful] = {
            "provenance": self.provenance,
            "autoencoder": self.autoencoder,
            "autoencoder_optimizer": self.autoencoder_optimizer,
            "progress": self,
            "outcomes": self.outcomes,
            "loader": self.loader,
            "loggers": self.loggers,
            "validation": self.validation,
            "advice": self.advisor,
        }
        if self.discriminator is not None and self.discriminator_optimizer is not None:
            parts |= {"discriminator": self.discriminator, "discriminator_optimizer": self.discriminator_optimizer}
        return parts

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of the networks."""
        return torch.autocast(self.hardware.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def state_dict(self) -> dict[str, Any]:
        """How far the run is logged."""
        return {"shown": self.shown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.shown = state["shown"]

    def resume(self) -> None:
        """Go back to the newest checkpoint, if there is one.

        Raises:
            ConfigError: it is of another model, or of a run on other data.
            CheckpointError: there are checkpoints, but none is intact.
            StorageError: there is no room for more of them.
        """
        with warnings.catch_warnings():
            if not self.process.is_first:
                warnings.simplefilter("ignore")  # the first one says it
            with memory_to_begin(SMALLER_RUN):
                self.done = self.checkpoints.load_latest(**self.state())
        if len(set(gather(self.done))) > 1:
            raise StorageError(
                f"The processes see different checkpoints in {self.checkpoints.folder}: share that folder."
            )
        if self.shown < 0:
            self.loggers.load_state_dict({})  # no checkpoint: whatever rows there are will come again
            self.validation.load_state_dict({})
            self.outcomes.begin()
        else:
            self.saved = self.done
        if not self.process.is_first:
            return
        self.checkpoints.replace_damaged_best()
        if self.done >= self.settings.steps:
            print(f"Nothing left to train: the run has {self.done} steps, and trainer.steps={self.settings.steps}.")
        elif self.shown < 0 and (self.folder / "metrics.jsonl").exists():
            print("This run was stopped before its first checkpoint: it begins again at step 0.")
        elif self.done:
            print(f"It goes on after step {self.done} of {self.settings.steps}.", flush=True)
        self.checkpoints.require_room(sum(3 * size_of(network.state_dict()) for network in self._networks()))

    def _after_step(self, stop: StopSignals, progress: Progress, clock: Clock) -> None:
        """Measure, log and save what is due after the steps done so far.

        Raises:
            StopRequested: a signal came, and there are steps left.
        """
        evaluation, score = None, None
        self.checkpoints.finish(wait=False)
        if self._is_look_due():
            self._look()
        if self.shown < self.done:
            row = self._train_row() | clock.read() if self.done and self._is_due(self.settings.log_every) else {}
            files: dict[str, Path] = {}
            if self._is_due(self.settings.evaluate_every):
                with stop.at_once():  # it changes nothing, and comes again when the run goes on
                    evaluation = self._evaluate()
                    with self.autocast():
                        files = self.validation.show(self.autoencoder, self.done, evaluation)
                row |= evaluation.metrics
                score = row["validation/psnr"]
            if row:
                self.outcomes.refuse_nonfinite(row, self.done)
            if row and self.process.is_first:
                progress.show(self.done, row)
                self.loggers.log(self.done, row, files)
                for advice in self.advisor.look(self.done, row):
                    progress.advise(advice)
                    self.loggers.advise(advice)
            if evaluation is not None:
                self.validation.record(self.done, evaluation)
            self.shown = self.done
            if score is not None:
                self.checkpoints.finish()  # else the best so far is not known
            improved = score is not None and from_first(score > self.checkpoints.best_score())
            if self.done and (improved or self._is_due(self.settings.checkpoint_every)):
                self._save(score)
            if evaluation is not None and self.process.is_first:
                self.report.update()
            if row:
                clock.restart()
        if self.done < self.settings.steps:
            stop.check()

    def _look(self) -> None:
        """See what came of the steps so far, in all processes."""
        self.outcomes.settle()
        self.loader.exchange()

    def _save(self, score: float | None) -> None:
        if self.saved == self.done:  # by a stop, before its validation
            if score is not None and self.process.is_first:
                self.checkpoints.finish()
                self.checkpoints.rate(self.done, score)
            return
        trained = {name: part.state_dict() for name, part in self.state().items() if name != "provenance"}
        self.outcomes.refuse_nonfinite(trained, self.done)
        if self.process.is_first:
            self.checkpoints.save_in_background(self.done, score, **self.state())
        self.saved = self.done

    @contextlib.contextmanager
    def _saving(self) -> Iterator[None]:
        """Wait for the last checkpoint in the end; the first error is the one to read."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.checkpoints.finish()
            raise
        self.checkpoints.finish()

    def _is_finite(self, metrics: dict[str, Tensor], adversarial: bool) -> Tensor:
        numbers = [metrics["train/total"], gradient_norm(self.autoencoder)]
        if adversarial:
            numbers += [metrics["train/discriminator"], gradient_norm(self.discriminator)]
        return torch.stack(numbers).isfinite().all()

    def _networks(self) -> list[nn.Module]:
        return [self.autoencoder, *([] if self.discriminator is None else [self.discriminator])]

    def _update(self, network: nn.Module, optimizer: Optimizer, step: int, finite: Tensor) -> None:
        if self.settings.clip_gradients is not None:
            nn.utils.clip_grad_norm_(network.parameters(), self.settings.clip_gradients)
        for group in optimizer.param_groups:
            group["lr"] = self._learning_rate(optimizer, step)
        step_if(finite, optimizer)
        optimizer.zero_grad(set_to_none=True)

    def _is_look_due(self) -> bool:
        cadences = (self.settings.log_every, self.settings.evaluate_every, self.settings.checkpoint_every)
        return self.outcomes.are_many() or any(self._is_due(every) for every in cadences)

    def _is_due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.settings.steps

    def _train_row(self) -> dict[str, float]:
        row = self.outcomes.numbers()
        row["train/skipped_steps"] = self.outcomes.skipped.total
        row["codebook/usage"] = float(self.autoencoder.quantizer.usage(min(self.settings.usage_steps, self.done)))
        optimizers = {"autoencoder": self.autoencoder_optimizer, "discriminator": self.discriminator_optimizer}
        for name, optimizer in optimizers.items():
            if optimizer is not None:
                row[f"learning_rate/{name}"] = float(self._learning_rate(optimizer, self.done - 1))
        return row

    def _learning_rate(self, optimizer: Optimizer, step: int) -> float:
        return optimizer.defaults["lr"] * self.schedule(step)

    def _stopped(self, what: str) -> StoppedError:
        command = "python" if self.process.count == 1 else "torchrun …"
        return StoppedError(f"{what} Go on with: {command} train.py resume={self.folder}")

    def _evaluate(self) -> Evaluation:
        with self.autocast():  # of the networks alone: what measures is float32
            evaluation = self.validation.measure(self.autoencoder)
        self.last_validation = evaluation.metrics
        return evaluation


def mean_of(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each metric over micro-batches and processes, in one message."""
    means = torch.stack([torch.stack([part[name].float() for part in parts]).mean() for name in parts[0]])
    return dict(zip(parts[0], mean_over_processes(means)))
