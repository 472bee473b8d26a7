"""The wiring: Hydra builds the leaves, Python builds the tree."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Backbone, Downsampling
from vqgan.config.build import build, discriminator_optimizer_values, find_class, public_values
from vqgan.config.keys import by_full_key
from vqgan.data import BadFiles, ClipDataset, Corpus, Loader
from vqgan.data.loader import read_evenly
from vqgan.data.reading.nursery import nursery
from vqgan.errors import ConfigError, DataError, check
from vqgan.loggers import JsonLines, Logger, Loggers
from vqgan.losses import FeatureTerm, Objective
from vqgan.quantizers import Quantizer
from vqgan.quantizers.usage import MOST_COUNTED
from vqgan.reports.page import LiveReport
from vqgan.runs.criterion import PSNR, Criterion
from vqgan.runs.folder import has_checkpoints
from vqgan.runs.provenance import make_provenance
from vqgan.runtime.collectives import first_alone, gather, refuse_shared_gpu
from vqgan.runtime.device import find_device, prepare, require_compiler, tune
from vqgan.runtime.process import ALONE, Process
from vqgan.runtime.processor import lays_channels_last
from vqgan.tokenizer.folder import load_weights
from vqgan.training.advice import Advisor
from vqgan.training.finite import SkippedSteps
from vqgan.training.freezing import freeze
from vqgan.training.history import Setup
from vqgan.training.journal import Journal
from vqgan.training.outcomes import Outcomes
from vqgan.training.player import Player
from vqgan.training.rate import Rate, rate_of
from vqgan.training.schedules import Schedule
from vqgan.training.settings import Settings
from vqgan.training.step import Step
from vqgan.training.tokenizer import TokenizerTrainer
from vqgan.training.validation import Validation, scalars_measured


def make_trainer(
    config: DictConfig, folder: Path, process: Process = ALONE, loggers: Mapping[str, Logger] | None = None
) -> TokenizerTrainer:
    """Build all parts and wire them: first what is quickly checked, then the data, then the networks."""
    settings: Settings = build(config.trainer, "trainer")
    if settings.freeze and config.init_from is None and not has_checkpoints(folder):
        raise ConfigError(f"trainer.freeze={settings.freeze}: that would stay random; say whose it is: init_from=RUN.")
    refuse_shared_gpu(find_device(settings.device))
    backbone: Backbone = build(config.backbone, "backbone")
    if config.data.get("workers"):
        nursery()  # which imports what reading needs while the networks are built
    with first_alone():
        loss = make_loss(config)  # the first one downloads the perceptual network for all on its machine
    objective = make_criterion(config, loss, process)
    schedule: Schedule = build(config.schedule, "schedule")
    data: Corpus = build(config.data, "data")
    _check_sizes(data, settings, backbone, process)
    bad_files = BadFiles(folder / "bad_files.jsonl", data.max_bad_fraction, data.max_bad_files, process.is_first)
    with first_alone():
        training, held_out = data.datasets(bad_files)
    refuse_different(data.fingerprint, config)

    autoencoder, optimizer, critic = make_networks(config, backbone, loss)
    if config.init_from is not None and not has_checkpoints(folder):  # else those weights are the past
        load_weights(str(config.init_from), autoencoder, None if critic is None else critic[0])
    still = read_evenly(held_out, data.validation_clips, bad_files, data.workers, data.limits)
    clips_a_step = settings.accumulate * data.batch_size
    if process.is_first:
        _warn_of_few(data, training, still.videos, clips_a_step)
    rate = rate_of(autoencoder, *still.clips.shape[1:4])
    facts = facts_of(autoencoder, bad_files, len(training), data.fingerprint, rate)
    chosen = {**make_loggers(config, folder, facts, objective), **(loggers or {})} if process.is_first else {}
    times, pixels = backbone.downsampling.times(still.clips.shape[1]), math.prod(backbone.downsampling[1:])
    latents_per_step = clips_a_step * times * data.resolution**2 // pixels
    loader = Loader(training, data.batch_size, data.workers, config.seed, bad_files, data.limits, process)
    skipped = SkippedSteps(settings.max_skipped_in_a_row, settings.max_skipped_fraction)
    journal = Journal(
        settings=settings,
        objective=objective,
        outcomes=Outcomes(skipped, loader, settings.accumulate, folder, process.is_first),
        validation=Validation(
            clips=still.clips,
            sources=still.sources,
            videos=still.videos,
            seconds=still.seconds,
            batch_size=data.batch_size // process.count,
            perceptual=loss.perceptual,
            pictures=settings.pictures,
            folder=folder,
            process=process,
        ),
        loggers=Loggers(chosen),
        advisor=make_advisor(config, settings, loss, autoencoder, latents_per_step),
        report=LiveReport(folder),
        process=process,
    )
    return TokenizerTrainer(
        settings=settings,
        step=make_step(settings, loss, (autoencoder, optimizer), critic, schedule, config.seed, process),
        loader=loader,
        journal=journal,
        provenance=make_provenance(public_values(config), find_device(settings.device), data.fingerprint),
        facts=facts,
        folder=folder,
        process=process,
    )


def make_networks(
    config: DictConfig, backbone: Backbone, loss: Objective
) -> tuple[Autoencoder, Optimizer, tuple[nn.Module, Optimizer] | None]:
    """The autoencoder and its optimizer, and the discriminator with its own; random weights follow from the seed.

    Raises:
        ConfigError: there are more codes than can be counted.
    """
    torch.manual_seed(config.seed)
    quantizer: Quantizer = build(config.model.quantizer, "model.quantizer")
    if quantizer.codebook_size > MOST_COUNTED:
        raise ConfigError(
            f"model.quantizer has {quantizer.codebook_size} codes an index, and an evaluation counts at most "
            f"{MOST_COUNTED}. For more bits a position take several codes: model.quantizer.depth, or model=product."
        )
    autoencoder = Autoencoder(backbone, quantizer)
    optimizer: Optimizer = build(config.optimizer, "optimizer", params=autoencoder.parameters())
    return autoencoder, optimizer, make_discriminator(config, loss)


def make_step(
    settings: Settings,
    loss: Objective,
    autoencoder: tuple[Autoencoder, Optimizer],
    discriminator: tuple[nn.Module, Optimizer] | None,
    schedule: Schedule,
    seed: int,
    process: Process = ALONE,
) -> Step:
    """The algorithm, its networks on their device, in their memory format and compiled as the settings say."""
    device = find_device(settings.device)
    tune(device, settings.precision)
    critic = None if discriminator is None else discriminator[0]
    for network in (autoencoder[0], critic, loss):
        if network is not None:
            prepare(network, device, lays_channels_last(settings.channels_last, device))
    freeze(autoencoder[0], settings.freeze)
    weighed = "decoder" not in settings.freeze or discriminator is None
    without = "without decoder, whose last layer weighs the adversary, or loss.discriminator_weight 0"
    check(weighed, "trainer.freeze", settings.freeze, without)
    if settings.activation_checkpointing:
        able = autoencoder[0].recompute_activations()
        check(able, "trainer.activation_checkpointing", True, "false: no part of this backbone can compute them again")
    if settings.compile:
        require_compiler()
        for network in (autoencoder[0], critic, loss.perceptual):
            if network is not None:
                network.compile()
    values: dict[str, Any] = {
        "schedule": schedule,
        "parts": settings.accumulate,
        "clip_gradients": settings.clip_gradients,
    }
    return Step(
        settings=settings,
        autoencoder=Player(*autoencoder, **values, weight_average=settings.weight_average),
        discriminator=None if discriminator is None else Player(*discriminator, **values, weight_average=None),
        loss=loss,
        device=device,
        seed=seed,
        process=process,
    )


def _check_sizes(data: Corpus, settings: Settings, backbone: Backbone, process: Process) -> None:
    """Whether clips fit the backbone, and batches the processes."""
    check(backbone.image_channels == 3, "backbone.image_channels", backbone.image_channels, "3, since clips are rgb")
    unit = math.lcm(*backbone.downsampling[1:])
    fits = data.resolution % unit == 0
    check(fits, "data.resolution", data.resolution, f"a multiple of {unit}, the backbone's downsampling")
    _check_clip_length(data, settings, backbone.downsampling)
    divides = data.batch_size % process.count == 0
    check(divides, "data.batch_size", data.batch_size, f"a multiple of {process.count}, the number of processes")


def _check_clip_length(data: Corpus, settings: Settings, downsampling: Downsampling) -> None:
    """Clips that are trained on fill their codes; those that are encoded may have any length."""
    whole = getattr(data, "clip_frames", 1)  # pictures are clips of one
    lengths = [("trainer.clip_lengths", frames) for frames in settings.clip_lengths]
    for key, frames in [("data.clip_frames", whole), *lengths]:
        shorter = downsampling.frames(max(1, downsampling.times(frames) - 1))
        longer = downsampling.frames(downsampling.times(frames))
        what = f"1 + {downsampling.time}·n for this backbone, as {shorter} or {longer}"
        check(frames == longer, key, frames, what)
        check(frames <= whole, key, frames, f"at most data.clip_frames={whole}, the frames that are read")


def refuse_different(fingerprint: str, config: DictConfig) -> None:
    """Raise an error if the processes, perhaps on several machines, were not given the same."""
    values = public_values(config)
    for rank, (data, given) in enumerate(gather((fingerprint, values))):
        if data != fingerprint:
            raise DataError(f"Process {rank} sees other data ({data}) than another one ({fingerprint}).")
        if given != values:
            raise ConfigError(f"Process {rank} was started with another config than the others; type the same for all.")


def make_loss(config: DictConfig) -> Objective:
    """The loss and its terms; a perceptual network only where it has a weight, or a term that looks through it."""
    terms = config.loss.get("terms", {}).items()
    kinds = [find_class(node.get("_target_"), f"loss.terms.{name}") for name, node in terms]
    sees = any(issubclass(kind, FeatureTerm) for kind in kinds)
    weighs = config.loss.get("perceptual_weight", 1.0) > 0
    loss: Objective = build(config.loss, "loss", **({} if weighs or sees else {"perceptual": None}))
    return loss


def make_criterion(config: DictConfig, loss: Objective, process: Process = ALONE) -> Criterion:
    """By which a checkpoint is the best: PSNR where evaluations do not measure what is asked for.

    That is no error: a sweep can compare its runs by a loss of training, of which `metrics.jsonl` has the rows, and
    runs of before the objective chose checkpoints go on.
    """
    asked, measured = str(config.objective), scalars_measured(loss.perceptual)
    scalar = asked.removeprefix("-")
    if scalar in measured:
        return Criterion(asked)
    if process.is_first:
        needed = "" if loss.perceptual is not None else "; validation/lpips needs loss.perceptual_weight above 0"
        warnings.warn(
            f"objective={asked}: evaluations of this run do not measure {scalar}, so the checkpoint `best` "
            f"is the one of the highest {PSNR.scalar}. They measure: {', '.join(measured)}{needed}.",
            stacklevel=2,
        )
    return PSNR


def make_discriminator(config: DictConfig, loss: Objective) -> tuple[nn.Module, Optimizer] | None:
    """The discriminator and its optimizer; None if its term has no weight."""
    if loss.discriminator_weight == 0:
        return None
    discriminator: nn.Module = build(config.discriminator, "discriminator")
    values = DictConfig(discriminator_optimizer_values(config))
    return discriminator, build(values, "discriminator_optimizer", params=discriminator.parameters())


def make_loggers(config: DictConfig, folder: Path, facts: dict[str, Any], objective: Criterion) -> dict[str, Logger]:
    """`metrics.jsonl`, and the chosen ones.

    To the config that they show belong the facts that follow from it, and the objective that holds.
    """
    shown = public_values(config) | {"objective": objective.name, "facts": facts}
    parts = {"folder": folder, "config": shown, "private": config.logger.private}
    nodes = {str(name): node for name, node in config.logger.items() if name != "private"}
    chosen = {name: build(node, f"logger.{name}", **parts) for name, node in nodes.items()}
    return {"jsonl": JsonLines(folder), **chosen}


def facts_of(autoencoder: Autoencoder, bad_files: BadFiles, clips: int, fingerprint: str, rate: Rate) -> dict[str, Any]:
    """What runs are told apart by, and is not in the config."""
    quantizer = autoencoder.quantizer
    return {
        "vqgan": version("vqgan"),
        "parameters": sum(p.numel() for p in autoencoder.parameters()),
        "codebook_size": quantizer.codebook_size,  # of every quantizer, whichever key it has that from
        "latent_dim": quantizer.latent_dim,
        "files": bad_files.total - len(bad_files.reasons),
        "training_clips": clips,
        "data_fingerprint": fingerprint,
        "fold": rate.fold,
        "tokens_per_frame": rate.tokens_per_frame,
        "bits_per_pixel": rate.bits_per_pixel,
    }


def make_advisor(
    config: DictConfig, settings: Settings, loss: Objective, autoencoder: Autoencoder, latents_per_step: int
) -> Advisor:
    """What watches the numbers."""
    setup = Setup(
        on_cpu=find_device(settings.device).type == "cpu",
        codebook_size=autoencoder.quantizer.codebook_size,
        latents_per_step=latents_per_step,
        usage_steps=settings.usage_steps,
        quantizer=dict(by_full_key(public_values(config)["model"]["quantizer"], "model.quantizer.")),
        chance=loss.chance,
        discriminator_start=loss.adversarial_start,
        discriminator_every=settings.discriminator_every,
        discriminator_weight=loss.discriminator_weight,
        largest_weight=loss.largest_weight,
        lecam_weight=OmegaConf.select(config, "loss.terms.lecam.weight"),
    )
    return Advisor(setup)


def _warn_of_few(data: Corpus, training: ClipDataset, validated: Sequence[str], clips_a_step: int) -> None:
    """Say where there is too little to validate on, or to fill a step with."""
    if not is_held_out(training, validated):
        warnings.warn(
            f"data.root={data.root} has a single video or picture that can be used: validation is on what is trained "
            "on, and says nothing about others. Name others for it, data.val_root=DIR, or add some.",
            stacklevel=3,
        )
    if clips_a_step > len(training):
        warnings.warn(
            f"A step takes {clips_a_step} clips, and there are {len(training)} to train on: each comes several times. "
            "Try a smaller data.batch_size.",
            stacklevel=3,
        )


def is_held_out(training: ClipDataset, videos: Sequence[str]) -> bool:
    """Whether the videos that are validated on are others than those that are trained on: not where there is one."""
    return str(training.video(0)) not in videos
