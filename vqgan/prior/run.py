"""One prior's run from its config to its last word."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

from vqgan.loggers import Logger
from vqgan.prior import figures
from vqgan.prior.cost import costs
from vqgan.prior.step import AVERAGE, NAME
from vqgan.prior.wiring import PriorTrainer, make_trainer
from vqgan.runs.metrics import speed
from vqgan.runtime.collectives import gather
from vqgan.text import counted
from vqgan.tokenizer.folder import tensors_in
from vqgan.training.run import Kind, run_as


def run(config: DictConfig, overrides: Sequence[str] = (), loggers: Mapping[str, Logger] | None = None) -> PriorTrainer:
    """Train a prior; see `run_as`. The config is composed from `conf/prior.yaml`."""
    return run_as(PRIOR, config, overrides, loggers)


def measure(trainer: PriorTrainer) -> None:
    """Measure the best checkpoint on all held-out videos, whole; prints the table and writes `evaluation.json`.

    The network is that checkpoint's from then on: the newest weights are in the newest checkpoint, and the run is over.

    Raises:
        StorageError: it cannot be written.
    """
    gather(None)  # the first one has written its last checkpoint
    step, state = trainer.checkpoints.read_best()
    prior = trainer.prior
    prior.load_state_dict(tensors_in(state, AVERAGE if AVERAGE in state else NAME, trainer.folder))
    places = list(trainer.held_out.places(trainer.data.clip_times))
    with trainer.step.autocast():
        found = costs(prior, trainer.held_out, places, trainer.loader.share)
    if not trainer.process.is_first:
        return
    told = figures.figures(trainer.held_out, found, trainer.bootstrap)
    root = trainer.data.val_root or trainer.data.root
    fingerprint = trainer.provenance.data
    protocol = figures.protocol_of(trainer.held_out, root, step, trainer.bootstrap, fingerprint)
    figures.write(trainer.folder, told, protocol)
    print(f"\nWhat the tokens cost\n{figures.as_table(told, trainer.held_out, trainer.bootstrap.confidence)}")


def beginning(trainer: PriorTrainer, config: DictConfig) -> list[tuple[str, str]]:  # noqa: ARG001
    """What is trained, on what, and where."""
    training, held_out, data = trainer.loader.videos, trainer.held_out, trainer.data
    tokens = training.tokens
    count = sum(p.numel() for p in trainer.prior.parameters()) / 1e6
    times, rows, columns = max(training.shape(n) for n in range(len(training)))
    held = "of " + data.val_root if data.val_root else "of the same folder"
    size = data.batch_size * trainer.settings.accumulate
    depth = f" × {tokens.depth}" if tokens.depth > 1 else ""
    processes = f"{trainer.process.count} processes, the first on " if trainer.process.count > 1 else ""
    return [
        ("run folder", str(trainer.folder)),
        ("tokens", f"{data.root}: {counted(tokens.total, 'code')} of {tokens.codebook_size}"),
        ("videos", f"{len(training)} for training, {len(held_out)} {held} to validate on"),
        ("a step", f"{counted(size, 'clip')} of {min(times, data.clip_times)} × {rows} × {columns}{depth} codes"),
        ("prior", f"{count:.1f} M parameters"),
        ("device", f"{processes}{trainer.device}, {trainer.settings.precision}"),
    ]


def end(trainer: PriorTrainer) -> list[tuple[str, str]]:
    """Where it lies, and what next."""
    folder = shlex.quote(str(trainer.folder))
    return [
        ("speed", speed(trainer.folder)),
        ("report", str(trainer.folder / "report.html")),
        ("figures", str(trainer.folder / figures.EVALUATION)),
        *trainer.journal.loggers.summaries(),
        ("what next", f"vqgan sample {folder} --out VIDEOS"),
    ]


PRIOR = Kind(make_trainer, beginning, end, measure)
