"""What a person reads in the terminal as a run begins, and as it is done: rows of two tables."""

from __future__ import annotations

from pathlib import Path

from vqgan.runs.checkpoint import rating
from vqgan.runs.criterion import PSNR
from vqgan.runs.metrics import speed
from vqgan.runtime.processor import choices
from vqgan.text import counted
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import is_held_out


def beginning(trainer: Trainer) -> list[tuple[str, str]]:
    """What is trained, on what, and where."""
    quantizer, bad_files = trainer.autoencoder.quantizer, trainer.loader.bad_files
    count = sum(p.numel() for p in trainer.autoencoder.parameters()) / 1e6
    processes = f"{trainer.process.count} processes, the first on " if trainer.process.count > 1 else ""
    bad = f", {len(bad_files.reasons)} of them bad ({bad_files.summary()})" if bad_files.reasons else ""
    return [
        ("run folder", str(trainer.folder)),
        ("data", f"{bad_files.total} files{bad}{_decoded(trainer)}"),
        ("clips", f"{len(trainer.loader.dataset)} for training, {_validation_clips(trainer)} to validate on"),
        ("adversary", _adversary(trainer)),
        ("tokenizer", f"{count:.1f} M parameters, {quantizer.codebook_size} codes of dimension {quantizer.latent_dim}"),
        ("device", f"{processes}{trainer.device}, {_choices(trainer)}"),
    ]


def end(trainer: Trainer) -> list[tuple[str, str]]:
    """What came of it, and where it lies."""
    values = trainer.journal.last_validation
    return [
        ("validation PSNR", f"{values['validation/psnr']:.2f} dB"),
        ("  mean colour alone", f"{values['validation/psnr_mean_colour']:.2f} dB"),
        ("validation SSIM", f"{values['validation/ssim']:.3f}"),
        ("codes in use", f"{values['validation/usage']:.0%}, perplexity {values['validation/perplexity']:.0f}"),
        ("speed", speed(trainer.folder)),
        ("report", str(trainer.folder / "report.html")),
        ("pictures", str(trainer.folder / "reconstructions")),
        ("metrics", str(trainer.folder / "metrics.jsonl")),
        ("best checkpoint", _best_checkpoint(trainer.folder / "checkpoints" / "best")),
        *trainer.journal.loggers.summaries(),
        *_advice(trainer),
    ]


def _best_checkpoint(link: Path) -> str:
    """Where it is, and what made it the best."""
    rated = rating(link)
    if rated is None:
        return str(link.resolve())
    objective, score = rated
    return f"{link.resolve()}, {f'{score:.2f} dB' if objective == PSNR else objective.text(score)}"


def _decoded(trainer: Trainer) -> str:
    size = trainer.loader.dataset.decoded_bytes
    return f"; decoded once, into {size / 2**20:.0f} MB of memory" if size else ""


def _adversary(trainer: Trainer) -> str:
    start, steps = trainer.loss.adversarial_start, trainer.settings.steps
    if trainer.discriminator is None:
        return "none"
    if start >= steps:
        warmup = trainer.loss.discriminator_warmup
        after = f", loss.discriminator_warmup={warmup}" if warmup else ""
        return f"never, since loss.discriminator_start={start - warmup}{after} and trainer.steps={steps}"
    return f"from step {start} on"


def _choices(trainer: Trainer) -> str:
    settings = trainer.settings
    return choices(settings.channels_last, settings.precision, trainer.device)


def _validation_clips(trainer: Trainer) -> str:
    """How many, and of how many videos, which may be far fewer."""
    clips, videos = len(trainer.journal.validation.clips), trainer.journal.validation.videos
    if not is_held_out(trainer.loader.dataset, videos):
        return f"{counted(clips, 'clip')} of the same video"
    different = len(set(videos))
    return f"{counted(clips, 'clip')} of {counted(different, 'video')}" if different < clips else str(clips)


def _advice(trainer: Trainer) -> list[tuple[str, str]]:
    lines = [f"{advice.title} (step {advice.step})" for advice in trainer.journal.advisor.given]
    return [("advice", line) for line in [*lines, str(trainer.folder / "advice.jsonl")]] if lines else []
