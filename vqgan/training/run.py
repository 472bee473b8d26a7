"""One run from its config to its last word."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vqgan.config.build import check_top_level
from vqgan.data.reading.own_folders import refuse_data_in
from vqgan.errors import VQGANError
from vqgan.loggers import Logger
from vqgan.reports.page import write_report
from vqgan.runs.folder import RunFolder
from vqgan.runs.metrics import speed
from vqgan.runs.status import status_after
from vqgan.runtime.collectives import Agreement, broadcast, process_group, raising_lost_process
from vqgan.runtime.device import SMALLER_RUN, memory_to_begin
from vqgan.runtime.signals import StopSignals
from vqgan.text import counted, table
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import is_held_out, make_trainer


def run(config: DictConfig, overrides: Sequence[str] = (), loggers: Mapping[str, Logger] | None = None) -> Trainer:
    """Train what the config describes, in the folder `config.run_dir`; a run that is there already goes on.

    Several processes that `torchrun` has started train one run, in the first one's folder.

    Args:
        config: composed from `conf/train.yaml`.
        overrides: what was typed to compose it; kept in the run folder.
        loggers: further ones, by name.

    Returns:
        The trainer, after its last step.

    Raises:
        VQGANError: see `vqgan.errors`; nothing that was saved is lost.
    """
    check_top_level(config)
    with process_group() as process:
        config.run_dir = broadcast(str(config.run_dir))  # it may hold the time
        path = Path(config.run_dir)
        _refuse_data_within(path, config)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(RunFolder(path, config, overrides)) if process.is_first else None
            stack.enter_context(raising_lost_process())
            with memory_to_begin(SMALLER_RUN):
                trainer = make_trainer(config, path, process, loggers)
            if process.is_first:
                print(f"Training {config.name}\n{table(_summary(trainer))}", flush=True)
            # Until the very end: one more signal must not disturb the few seconds in which a stopped run ends.
            with StopSignals(Agreement() if process.count > 1 else None) as stop:
                try:
                    trainer.resume()
                    if folder is not None:
                        folder.keep()
                    trainer.run(stop)
                except BaseException as error:
                    with contextlib.suppress(VQGANError, OSError):  # the first error is the one to read
                        _finish(trainer, error)
                    raise
            _finish(trainer)
            if process.is_first:
                print(f"\nDone.\n{table(_result(trainer))}", flush=True)
    return trainer


def _refuse_data_within(run_dir: Path, config: DictConfig) -> None:
    """Before anything is written there."""
    for key in ("data.root", "data.val_root"):
        root = OmegaConf.select(config, key)
        if root is not None:
            refuse_data_in(run_dir, str(root), key)


def _finish(trainer: Trainer, error: BaseException | None = None) -> None:
    trainer.journal.loggers.close(error)
    if trainer.process.is_first:
        write_report(trainer.folder, status_after(error).state)  # which will be written down when the folder is left


def _adversary(trainer: Trainer) -> str:
    start, steps = trainer.loss.adversarial_start, trainer.settings.steps
    if trainer.discriminator is None:
        return "none"
    if start >= steps:
        warmup = trainer.loss.discriminator_warmup
        after = f", loss.discriminator_warmup={warmup}" if warmup else ""
        return f"never, since loss.discriminator_start={start - warmup}{after} and trainer.steps={steps}"
    return f"from step {start} on"


def _validation_clips(trainer: Trainer) -> str:
    """How many, and of how many videos, which may be far fewer."""
    clips, videos = len(trainer.journal.validation.clips), trainer.journal.validation.videos
    if not is_held_out(trainer.loader.dataset, videos):
        return f"{counted(clips, 'clip')} of the same video"
    different = len(set(videos))
    return f"{counted(clips, 'clip')} of {counted(different, 'video')}" if different < clips else str(clips)


def _summary(trainer: Trainer) -> list[tuple[str, str]]:
    quantizer, bad_files = trainer.autoencoder.quantizer, trainer.loader.bad_files
    count = sum(p.numel() for p in trainer.autoencoder.parameters()) / 1e6
    processes = f"{trainer.process.count} processes, the first on " if trainer.process.count > 1 else ""
    bad = f", {len(bad_files.reasons)} of them bad ({bad_files.summary()})" if bad_files.reasons else ""
    return [
        ("run folder", str(trainer.folder)),
        ("data", f"{bad_files.total} files{bad}"),
        ("clips", f"{len(trainer.loader.dataset)} for training, {_validation_clips(trainer)} to validate on"),
        ("adversary", _adversary(trainer)),
        ("tokenizer", f"{count:.1f} M parameters, {quantizer.codebook_size} codes of dimension {quantizer.latent_dim}"),
        ("device", f"{processes}{trainer.device}, {trainer.settings.precision}"),
    ]


def _result(trainer: Trainer) -> list[tuple[str, str]]:
    values = trainer.journal.last_validation
    checkpoints = trainer.folder / "checkpoints"
    return [
        ("validation PSNR", f"{values['validation/psnr']:.2f} dB"),
        ("  mean colour alone", f"{values['validation/psnr_mean_colour']:.2f} dB"),
        ("validation SSIM", f"{values['validation/ssim']:.3f}"),
        ("codes in use", f"{values['validation/usage']:.0%}, perplexity {values['validation/perplexity']:.0f}"),
        ("speed", speed(trainer.folder)),
        ("report", str(trainer.folder / "report.html")),
        ("pictures", str(trainer.folder / "reconstructions")),
        ("metrics", str(trainer.folder / "metrics.jsonl")),
        ("best checkpoint", f"{(checkpoints / 'best').resolve()}, {trainer.checkpoints.best_score():.2f} dB"),
        *trainer.journal.loggers.summaries(),
        *_advice(trainer),
    ]


def _advice(trainer: Trainer) -> list[tuple[str, str]]:
    lines = [f"{advice.title} (step {advice.step})" for advice in trainer.journal.advisor.given]
    return [("advice", line) for line in [*lines, str(trainer.folder / "advice.jsonl")]] if lines else []
