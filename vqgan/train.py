"""The wiring: Hydra builds the leaves, Python builds the tree."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

import vqgan
from vqgan.advice import Advisor
from vqgan.autoencoder import Autoencoder
from vqgan.blocks import Backbone
from vqgan.collectives import (
    Agreement,
    first_alone,
    from_first,
    gather,
    joined,
    noticing_loss,
    refuse_shared_gpu,
)
from vqgan.config import build, check_top_level, public_values
from vqgan.data import BadFiles, ClipDataset, Corpus, Loader
from vqgan.data.loader import read_evenly
from vqgan.data.own_folders import refuse_data_in
from vqgan.device import SMALLER_RUN, find_device, memory_to_begin
from vqgan.distributed import ALONE, Process
from vqgan.errors import ConfigError, DataError, VQGANError, check, counted
from vqgan.history import Setup
from vqgan.loggers import JsonLines, Logger, Loggers
from vqgan.losses import VQGANLoss
from vqgan.provenance import make_provenance
from vqgan.report import LiveReport, speed, write_report
from vqgan.run_folder import RunFolder, has_checkpoints
from vqgan.schedules import Schedule
from vqgan.settings import Settings
from vqgan.signals import StopSignals
from vqgan.terminal import table
from vqgan.tokenizer import load_weights
from vqgan.trainer import Trainer
from vqgan.validation import Validation


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
    with joined() as process:
        config.run_dir = from_first(str(config.run_dir))  # it may hold the time
        path = Path(config.run_dir)
        _refuse_data_within(path, config)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(RunFolder(path, config, overrides)) if process.is_first else None
            stack.enter_context(noticing_loss())
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
    trainer.loggers.close(error)
    if trainer.process.is_first:
        write_report(trainer.folder)


def make_trainer(
    config: DictConfig, folder: Path, process: Process = ALONE, loggers: Mapping[str, Logger] | None = None
) -> Trainer:
    """Build all parts and wire them: first what is quickly checked, then the data, then the networks."""
    settings: Settings = build(config.trainer, "trainer")
    refuse_shared_gpu(find_device(settings.device))
    backbone: Backbone = build(config.backbone, "backbone")
    with first_alone():
        loss = make_loss(config)  # the first one downloads the perceptual network for all on its machine
    schedule: Schedule = build(config.schedule, "schedule")
    data: Corpus = build(config.data, "data")
    check(backbone.image_channels == 3, "backbone.image_channels", backbone.image_channels, "3, since clips are rgb")
    fits, unit = data.resolution % backbone.downsampling == 0, f"{backbone.downsampling}, the backbone's downsampling"
    check(fits, "data.resolution", data.resolution, f"a multiple of {unit}")
    divides = data.batch_size % process.count == 0
    check(divides, "data.batch_size", data.batch_size, f"a multiple of {process.count}, the number of processes")
    bad_files = BadFiles(folder / "bad_files.jsonl", data.max_bad_fraction, data.max_bad_files, process.is_first)
    with first_alone():
        training, held_out = data.datasets(bad_files)
    _refuse_different(data.fingerprint, config)

    torch.manual_seed(config.seed)  # initial weights depend on the seed alone
    autoencoder = Autoencoder(backbone, build(config.model.quantizer, "model.quantizer"))
    autoencoder_optimizer: Optimizer = build(config.optimizer, "optimizer", params=autoencoder.parameters())
    discriminator, discriminator_optimizer = make_discriminator(config, loss)
    if config.init_from is not None and not has_checkpoints(folder):  # else those weights are the past
        load_weights(str(config.init_from), autoencoder, discriminator)
    still = read_evenly(held_out, data.validation_clips, bad_files, data.workers, data.limits)
    if not _is_held_out(training, still.videos) and process.is_first:
        warnings.warn(
            f"data.root={data.root} has a single video or picture that can be used: validation is on what is trained "
            "on, and says nothing about others. Name others for it, data.val_root=DIR, or add some.",
            stacklevel=2,
        )
    facts = facts_of(autoencoder, bad_files, len(training), data.fingerprint)
    frames_per_step = settings.accumulate * data.batch_size * still.clips.shape[1]
    return Trainer(
        settings=settings,
        autoencoder=autoencoder,
        discriminator=discriminator,
        loss=loss,
        autoencoder_optimizer=autoencoder_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        schedule=schedule,
        loader=Loader(training, data.batch_size, data.workers, config.seed, bad_files, data.limits, process),
        validation=Validation(
            clips=still.clips,
            sources=still.sources,
            videos=still.videos,
            batch_size=data.batch_size // process.count,
            perceptual=loss.perceptual,
            pictures=settings.pictures,
            folder=folder,
            process=process,
        ),
        loggers=Loggers({**make_loggers(config, folder, facts), **(loggers or {})} if process.is_first else {}),
        advisor=make_advisor(
            settings, loss, autoencoder, frames_per_step * (data.resolution // backbone.downsampling) ** 2
        ),
        provenance=make_provenance(public_values(config), find_device(settings.device), data.fingerprint),
        report=LiveReport(folder),
        folder=folder,
        seed=config.seed,
        process=process,
    )


def _refuse_different(fingerprint: str, config: DictConfig) -> None:
    """Raise an error if the processes, perhaps on several machines, were not given the same."""
    values = public_values(config)
    for rank, (data, given) in enumerate(gather((fingerprint, values))):
        if data != fingerprint:
            raise DataError(f"Process {rank} sees other data ({data}) than another one ({fingerprint}).")
        if given != values:
            raise ConfigError(f"Process {rank} was started with another config than the others; type the same for all.")


def make_loss(config: DictConfig) -> VQGANLoss:
    """The loss; its perceptual network only if it has a weight."""
    has_weight = config.loss.perceptual_weight > 0
    perceptual = build(config.loss.perceptual, "loss.perceptual") if has_weight else None
    loss: VQGANLoss = build(config.loss, "loss", perceptual=perceptual)
    return loss


def make_discriminator(config: DictConfig, loss: VQGANLoss) -> tuple[nn.Module | None, Optimizer | None]:
    """The discriminator and its optimizer; neither if its term has no weight."""
    if loss.discriminator_weight == 0:
        return None, None
    discriminator: nn.Module = build(config.discriminator, "discriminator")
    values = DictConfig({**config.optimizer, **config.discriminator_optimizer})
    return discriminator, build(values, "discriminator_optimizer", params=discriminator.parameters())


def make_loggers(config: DictConfig, folder: Path, facts: dict[str, Any]) -> dict[str, Logger]:
    """`metrics.jsonl`, and the chosen ones; to the config that they show belong the facts that follow from it."""
    shown = public_values(config) | {"facts": facts}
    parts = {"folder": folder, "config": shown, "private": config.logger.private}
    nodes = {str(name): node for name, node in config.logger.items() if name != "private"}
    chosen = {name: build(node, f"logger.{name}", **parts) for name, node in nodes.items()}
    return {"jsonl": JsonLines(folder), **chosen}


def facts_of(autoencoder: Autoencoder, bad_files: BadFiles, clips: int, fingerprint: str) -> dict[str, Any]:
    """What runs are told apart by, and is not in the config."""
    quantizer = autoencoder.quantizer
    return {
        "vqgan": vqgan.__version__,
        "parameters": sum(p.numel() for p in autoencoder.parameters()),
        "codebook_size": quantizer.codebook_size,  # of every quantizer, whichever key it has that from
        "latent_dim": quantizer.latent_dim,
        "files": bad_files.total - len(bad_files.reasons),
        "training_clips": clips,
        "data_fingerprint": fingerprint,
    }


def make_advisor(settings: Settings, loss: VQGANLoss, autoencoder: Autoencoder, latents_per_step: int) -> Advisor:
    """What watches the numbers."""
    setup = Setup(
        codebook_size=autoencoder.quantizer.codebook_size,
        latents_per_step=latents_per_step,
        usage_steps=settings.usage_steps,
        adversarial=loss.adversarial,
        discriminator_start=loss.discriminator_start,
        discriminator_every=settings.discriminator_every,
        discriminator_weight=loss.discriminator_weight,
        max_adaptive_weight=loss.max_adaptive_weight,
    )
    return Advisor(setup)


def _adversary(trainer: Trainer) -> str:
    start, steps = trainer.loss.discriminator_start, trainer.settings.steps
    if trainer.discriminator is None:
        return "none"
    if start >= steps:
        return f"never, since loss.discriminator_start={start} and trainer.steps={steps}"
    return f"from step {start} on"


def _is_held_out(training: ClipDataset, videos: Sequence[str]) -> bool:
    """Whether the videos that are validated on are others than those that are trained on: not where there is one."""
    return str(training.video(0)) not in videos


def _validation_clips(trainer: Trainer) -> str:
    """How many, and of how many videos, which may be far fewer."""
    clips, videos = len(trainer.validation.clips), trainer.validation.videos
    if not _is_held_out(trainer.loader.dataset, videos):
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
        ("device", f"{processes}{trainer.hardware}, {trainer.settings.precision}"),
    ]


def _result(trainer: Trainer) -> list[tuple[str, str]]:
    values = trainer.last_validation
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
        *trainer.loggers.summaries(),
        *_advice(trainer),
    ]


def _advice(trainer: Trainer) -> list[tuple[str, str]]:
    lines = [f"{advice.title} (step {advice.step})" for advice in trainer.advisor.given]
    return [("advice", line) for line in [*lines, str(trainer.folder / "advice.jsonl")]] if lines else []
