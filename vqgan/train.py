"""The wiring: Hydra builds the leaves, Python builds the tree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from vqgan.autoencoder import Autoencoder
from vqgan.blocks import Backbone
from vqgan.config import build, check_top_level, public_values
from vqgan.data import BadFiles, ClipDataset, Folder, Loader
from vqgan.data.loader import read_evenly
from vqgan.errors import check
from vqgan.loggers import JsonLines, Loggers
from vqgan.losses import VQGANLoss
from vqgan.report import write_report
from vqgan.run_folder import RunFolder
from vqgan.terminal import table
from vqgan.tokenizer import load_weights
from vqgan.trainer import Trainer


def run(config: DictConfig, overrides: Sequence[str] = ()) -> Trainer:
    """Train what the config describes, in the folder `config.run_dir`; a run that is there already goes on.

    Args:
        config: composed from `conf/train.yaml`.
        overrides: what was typed to compose it; kept in the run folder.

    Returns:
        The trainer, after its last step.

    Raises:
        VQGANError: see `vqgan.errors`; nothing that was saved is lost.
    """
    check_top_level(config)
    with RunFolder(Path(config.run_dir), config, overrides) as folder:
        data: Folder[Any] = build(config.data, "data")
        bad_files = BadFiles(folder.path / "bad_files.jsonl", data.max_bad_fraction, data.max_bad_files)
        training, validation = data.datasets(bad_files)
        trainer = make_trainer(config, folder.path, data, bad_files, training, validation)
        print(f"vqgan {config.name}\n{table(_summary(trainer, data, bad_files, training, validation))}", flush=True)
        try:
            trainer.run()
        finally:
            trainer.loggers.close()
            write_report(folder.path)
        print(f"\nDone.\n{table(_result(trainer))}", flush=True)
    return trainer


def make_trainer(
    config: DictConfig,
    folder: Path,
    data: Folder[Any],
    bad_files: BadFiles,
    training: ClipDataset,
    validation: ClipDataset,
) -> Trainer:
    """Build networks, losses, optimizers and loggers, and wire them."""
    torch.manual_seed(config.seed)  # initial weights depend on the seed alone
    backbone: Backbone = build(config.backbone, "backbone")
    fits = data.resolution % backbone.downsampling == 0
    check(
        fits, "data.resolution", data.resolution, f"a multiple of {backbone.downsampling}, the backbone's downsampling"
    )
    autoencoder = Autoencoder(backbone, build(config.model.quantizer, "model.quantizer"))
    loss = make_loss(config)
    discriminator: nn.Module | None = None
    discriminator_optimizer = None
    autoencoder_optimizer = build(config.optimizer, "optimizer", params=autoencoder.parameters())
    if loss.discriminator_weight > 0:
        discriminator = build(config.discriminator, "discriminator")
        settings = DictConfig({**config.optimizer, **config.discriminator_optimizer})
        discriminator_optimizer = build(settings, "discriminator_optimizer", params=discriminator.parameters())
    if config.init_from is not None:
        load_weights(str(config.init_from), autoencoder, discriminator)
    parts = {"folder": folder, "config": public_values(config)}
    loggers = {name: build(node, f"logger.{name}", **parts) for name, node in config.logger.items()}
    trainer: Trainer = build(
        config.trainer,
        "trainer",
        autoencoder=autoencoder,
        discriminator=discriminator,
        loss=loss,
        autoencoder_optimizer=autoencoder_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        schedule=build(config.schedule, "schedule"),
        loader=Loader(training, data.batch_size, data.workers, config.seed, bad_files),
        validation=read_evenly(validation, data.validation_clips, bad_files),
        loggers=Loggers({"jsonl": JsonLines(folder), **loggers}),
        folder=folder,
        seed=config.seed,
    )
    return trainer


def make_loss(config: DictConfig) -> VQGANLoss:
    """The loss; its perceptual network only if it has a weight."""
    perceptual = build(config.loss.perceptual, "loss.perceptual") if config.loss.perceptual_weight else None
    loss: VQGANLoss = build(config.loss, "loss", perceptual=perceptual)
    return loss


def _summary(
    trainer: Trainer, data: Folder[Any], bad_files: BadFiles, training: ClipDataset, validation: ClipDataset
) -> list[tuple[str, str]]:
    quantizer = trainer.autoencoder.quantizer
    count = sum(p.numel() for p in trainer.autoencoder.parameters()) / 1e6
    unusable = f", {len(bad_files.reasons)} cannot be used ({bad_files.summary()})" if bad_files.reasons else ""
    return [
        ("run folder", str(trainer.folder)),
        ("data", f"{bad_files.total} files below {data.root}{unusable}"),
        ("clips", f"{len(training)} for training, {len(validation)} for validation"),
        ("tokenizer", f"{count:.1f} M parameters, {quantizer.codebook_size} codes of dimension {quantizer.latent_dim}"),
        ("device", f"{trainer.hardware}, {trainer.precision}"),
    ]


def _result(trainer: Trainer) -> list[tuple[str, str]]:
    values = trainer.last_validation
    checkpoints = trainer.folder / "checkpoints"
    return [
        (
            "validation PSNR",
            f"{values['validation/psnr']:.2f} dB ({values['validation/psnr_mean_colour']:.2f} dB: mean colour)",
        ),
        ("validation SSIM", f"{values['validation/ssim']:.3f}"),
        ("codes in use", f"{values['validation/usage']:.0%}, perplexity {values['validation/perplexity']:.0f}"),
        ("report", str(trainer.folder / "report.html")),
        ("pictures", str(trainer.folder / "reconstructions")),
        ("metrics", str(trainer.folder / "metrics.jsonl")),
        ("best checkpoint", str((checkpoints / "best").resolve())),
    ]
