"""What a person reads in the terminal as a run begins, and as it is done: rows of two tables."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vqgan.runs.checkpoint import rating
from vqgan.runs.criterion import PSNR
from vqgan.runs.metrics import speed
from vqgan.runtime.device import peak_of
from vqgan.runtime.processor import choices
from vqgan.text import counted
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import is_held_out

FEW_VIDEOS = 5  # to validate on: of fewer, the figures are those of these videos and say little of others


def beginning(trainer: Trainer, config: DictConfig) -> list[tuple[str, str]]:
    """What is trained, on what, what its tokens cost, and where."""
    quantizer, bad_files = trainer.autoencoder.quantizer, trainer.loader.bad_files
    count = sum(p.numel() for p in trainer.autoencoder.parameters()) / 1e6
    processes = f"{trainer.process.count} processes, the first on " if trainer.process.count > 1 else ""
    bad = f", {len(bad_files.reasons)} of them bad ({bad_files.summary()})" if bad_files.reasons else ""
    return [
        ("run folder", str(trainer.folder)),
        ("data", f"{_source(config)}: {counted(bad_files.total, 'file')}{bad}{_decoded(trainer)}"),
        ("clips", f"{len(trainer.loader.dataset)} for training, {_validation_clips(trainer)}"),
        ("a step", _step(trainer)),
        ("tokens", _tokens(trainer)),
        ("adversary", _adversary(trainer)),
        ("tokenizer", f"{count:.1f} M parameters, {quantizer.codebook_size} codes of dimension {quantizer.latent_dim}"),
        ("device", f"{processes}{trainer.device}, {_choices(trainer)}"),
        *_memory(trainer),
    ]


def end(trainer: Trainer) -> list[tuple[str, str]]:
    """What came of it, and where it lies."""
    values, folder = trainer.journal.last_validation, shlex.quote(str(trainer.folder))
    return [
        ("validation PSNR", f"{values['validation/psnr']:.2f} dB"),
        ("  mean colour alone", f"{values['validation/psnr_mean_colour']:.2f} dB{_verdict(values)}"),
        ("validation SSIM", f"{values['validation/ssim']:.3f}"),
        ("codes in use", f"{values['validation/usage']:.0%}, perplexity {values['validation/perplexity']:.0f}"),
        ("speed", speed(trainer.folder)),
        ("memory", f"{_gib(peak_of(trainer.device))} at the peak"),
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


def _memory(trainer: Trainer) -> list[tuple[str, str]]:
    """What a step will take at its peak, of tensors on a GPU, of all of the process on a CPU."""
    peak, whose = trainer.expected_peak, "" if trainer.device.type == "cuda" else " of the process"
    return [] if peak is None else [("memory", f"about {_gib(peak)}{whose} at the peak of a step")]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB"


def _source(config: DictConfig) -> str:
    """The kind of data, and where they lie."""
    kind, root = str(config.data["_target_"]).rpartition(".")[2], OmegaConf.select(config, "data.root")
    return kind if root is None else f"{kind} in {root}"


def _step(trainer: Trainer) -> str:
    """What it takes of the data, and how many there are."""
    frames, height, width = trainer.journal.validation.clips.shape[1:4]
    clips = trainer.loader.batch_size * trainer.settings.accumulate
    steps = counted(trainer.settings.steps, "step")
    return f"{counted(clips, 'clip')} of {counted(frames, 'frame')}, {width} × {height} pixels; {steps}"


def _tokens(trainer: Trainer) -> str:
    """What a clip costs in them: f8 is a position for 8 × 8 pixels, k4 one for 4 frames."""
    frames, height, width = trainer.journal.validation.clips.shape[1:4]
    quantizer, by = trainer.autoencoder.quantizer, trainer.autoencoder.downsampling
    rows, columns, bits = height // by.height, width // by.width, math.log2(quantizer.codebook_size)
    fold = f"f{by.height}" if by.height == by.width else f"f{by.height}×{by.width}"
    fold += f"k{by.time}" if by.time > 1 else ""
    depth = f" × {quantizer.depth}" if quantizer.depth > 1 else ""
    count = rows * columns * quantizer.depth
    pixel = by.times(frames) * count * bits / (frames * height * width)
    per = "frame" if by.time == 1 else "latent frame"
    return f"{fold}: {rows} × {columns}{depth} = {count:,} a {per}, {bits:.4g} bits each, {pixel:.3g} bits a pixel"


def _verdict(values: Mapping[str, float]) -> str:
    if values["validation/psnr"] >= values["validation/psnr_mean_colour"]:
        return ""
    return ": this run is worse than a flat colour, and its tokens say nothing yet"


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
        return f"{counted(clips, 'clip')} of the same video to validate on"
    different = len(set(videos))
    said = f"{counted(clips, 'clip')} of {counted(different, 'video')}" if different < clips else str(clips)
    few = ", which are few: data.val_root or data.val_fraction gives more" if different < FEW_VIDEOS else ""
    return f"{said} to validate on{few}"


def _advice(trainer: Trainer) -> list[tuple[str, str]]:
    lines = [f"{advice.title} (step {advice.step})" for advice in trainer.journal.advisor.given]
    return [("advice", line) for line in [*lines, str(trainer.folder / "advice.jsonl")]] if lines else []
