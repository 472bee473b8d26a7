"""What a person reads in the terminal as a run begins, and as it is done: rows of two tables."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vqgan.quantizers.usage import ENOUGH, touched
from vqgan.runs.checkpoint import rating
from vqgan.runs.criterion import PSNR
from vqgan.runs.metrics import speed
from vqgan.runtime.device import peak_of
from vqgan.runtime.processor import choices
from vqgan.text import counted
from vqgan.training.advice import LOW_USAGE
from vqgan.training.rate import rate_of
from vqgan.training.tokenizer import TokenizerTrainer
from vqgan.training.wiring import is_held_out

FEW_VIDEOS = 5  # to validate on: of fewer, the figures are those of these videos and say little of others


def beginning(trainer: TokenizerTrainer, config: DictConfig) -> list[tuple[str, str]]:
    """What is trained, on what, what its tokens cost, and where."""
    quantizer, bad_files = trainer.autoencoder.quantizer, trainer.loader.bad_files
    count = sum(p.numel() for p in trainer.autoencoder.parameters()) / 1e6
    processes = f"{trainer.process.count} processes, the first on " if trainer.process.count > 1 else ""
    ledger = trainer.folder / "bad_files.jsonl"
    bad = f", of which {bad_files.said()} (see {ledger})" if bad_files.reasons else ""
    return [
        ("run folder", str(trainer.folder)),
        ("data", f"{_source(config)}: {counted(bad_files.total, 'file')}{bad}{_decoded(trainer)}"),
        ("clips", f"{len(trainer.loader.dataset)} for training, {_validation_clips(trainer)}"),
        ("a step", _step(trainer)),
        ("tokens", rate_of(trainer.autoencoder, *trainer.validation.clips.shape[1:4]).said),
        ("adversary", _adversary(trainer)),
        ("tokenizer", f"{count:.1f} M parameters, {quantizer.codebook_size} codes of dimension {quantizer.latent_dim}"),
        ("device", f"{processes}{trainer.device}, {_choices(trainer)}"),
        *_memory(trainer),
    ]


def end(trainer: TokenizerTrainer) -> list[tuple[str, str]]:
    """What came of it, and where it lies."""
    values, folder = trainer.journal.last_validation, shlex.quote(str(trainer.folder))
    return [
        ("validation PSNR", f"{values['validation/psnr']:.2f} dB"),
        ("  mean colour alone", f"{values['validation/psnr_mean_colour']:.2f} dB{_verdict(values)}"),
        ("validation SSIM", f"{values['validation/ssim']:.3f}"),
        ("codes in use", _codes(trainer)),
        ("speed", speed(trainer.folder)),
        ("memory", f"{_gib(peak_of(trainer.device))} at the peak{_expected(trainer)}"),
        ("report", str(trainer.folder / "report.html")),
        ("pictures", str(trainer.folder / "reconstructions")),
        ("metrics", str(trainer.folder / "metrics.jsonl")),
        ("best checkpoint", _best_checkpoint(trainer.folder / "checkpoints" / "best")),
        *trainer.journal.loggers.summaries(),
        *_advice(trainer),
        ("what next", f"vqgan evaluate {folder}"),
        ("", f"vqgan encode {folder} VIDEOS --out TOKENS"),
        ("", f"vqgan export {folder} --out DIR"),
    ]


def _memory(trainer: TokenizerTrainer) -> list[tuple[str, str]]:
    """What a step will take at its peak, of tensors on a GPU, of all of the process on a CPU."""
    peak, whose = trainer.expected_peak, "" if trainer.device.type == "cuda" else " of the process"
    each = ", in each" if trainer.process.count > 1 else ""
    return [] if peak is None else [("memory", f"about {_gib(peak)}{whose}{each} at the peak of a step")]


def _expected(trainer: TokenizerTrainer) -> str:
    """What was said of it at the beginning."""
    return "" if trainer.expected_peak is None else f"; expected were {_gib(trainer.expected_peak)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB"


def _source(config: DictConfig) -> str:
    """The kind of data, and where they lie."""
    kind, root = str(config.data["_target_"]).rpartition(".")[2], OmegaConf.select(config, "data.root")
    return kind if root is None else f"{kind} in {root}"


def _step(trainer: TokenizerTrainer) -> str:
    """What it takes of the data, and how many there are."""
    frames, height, width = trainer.validation.clips.shape[1:4]
    clips = trainer.loader.batch_size * trainer.settings.accumulate
    steps, lengths = counted(trainer.settings.steps, "step"), trainer.settings.clip_lengths
    cut = f", cut to {' or '.join(map(str, lengths))}" if lengths else ""
    return f"{counted(clips, 'clip')} of {counted(frames, 'frame')}{cut}, {width} × {height} pixels; {steps}"


def _verdict(values: Mapping[str, float]) -> str:
    if values["validation/psnr"] >= values["validation/psnr_mean_colour"]:
        return ""
    return ": this run is worse than a flat colour, and its tokens say nothing yet"


def _codes(trainer: TokenizerTrainer) -> str:
    """How many the validation clips touch, of how many they could, and whether that is few."""
    values, clips, quantizer = trainer.journal.last_validation, trainer.validation.clips, trainer.autoencoder.quantizer
    tokens = rate_of(trainer.autoencoder, *clips.shape[1:4]).tokens_per_frame
    latents = round(clips.shape[0] * clips.shape[1] * tokens / quantizer.depth)
    usage, possible = values["validation/usage"], touched(latents, quantizer.codebook_size)
    most = f" of {possible:.0%} that {latents:,} latents could touch" if possible < ENOUGH else ""
    said = f"{usage:.0%}{most}, perplexity {values['validation/perplexity']:.0f}"
    trained = trainer.step.row(trainer.done).get("codebook/usage", 0.0)  # which few validation clips cannot tell of
    few = max(usage, trained) < LOW_USAGE * possible
    return f"{said}: few, and the others are never chosen; docs/advice.md has what to try" if few else said


def _best_checkpoint(link: Path) -> str:
    """Where it is, and what made it the best."""
    rated = rating(link)
    if rated is None:
        return str(link.resolve())
    objective, score = rated
    return f"{link.resolve()}, {f'{score:.2f} dB' if objective == PSNR else objective.text(score)}"


def _decoded(trainer: TokenizerTrainer) -> str:
    size = trainer.loader.dataset.decoded_bytes
    return f"; decoded once, into {size / 2**20:.0f} MB of memory" if size else ""


def _adversary(trainer: TokenizerTrainer) -> str:
    start, steps = trainer.loss.adversarial_start, trainer.settings.steps
    if trainer.discriminator is None:
        return "none"
    if start >= steps:
        warmup = trainer.loss.discriminator_warmup
        after = f", loss.discriminator_warmup={warmup}" if warmup else ""
        return f"never, since loss.discriminator_start={start - warmup}{after} and trainer.steps={steps}"
    return f"from step {start} on"


def _choices(trainer: TokenizerTrainer) -> str:
    settings = trainer.settings
    return choices(settings.channels_last, settings.precision, trainer.device)


def _validation_clips(trainer: TokenizerTrainer) -> str:
    """How many, and of how many videos, which may be far fewer."""
    clips, videos = len(trainer.validation.clips), trainer.validation.videos
    if not is_held_out(trainer.loader.dataset, videos):
        return f"{counted(clips, 'clip')} of the same video to validate on"
    different = len(set(videos))
    said = f"{counted(clips, 'clip')} of {counted(different, 'video')}" if different < clips else str(clips)
    few = ", which are few: data.val_root or data.val_fraction gives more" if different < FEW_VIDEOS else ""
    return f"{said} to validate on{few}"


def _advice(trainer: TokenizerTrainer) -> list[tuple[str, str]]:
    lines = [f"{advice.title} (step {advice.step})" for advice in trainer.journal.advisor.given]
    return [("advice", line) for line in [*lines, str(trainer.folder / "advice.jsonl")]] if lines else []
