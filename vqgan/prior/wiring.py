"""The wiring of a prior's run: Hydra builds the leaves, Python builds the tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.optim import Optimizer

from vqgan.config.build import build, public_values
from vqgan.errors import ConfigError, StorageError, check
from vqgan.loggers import Logger, Loggers
from vqgan.prior.advice import PriorAdvisor, PriorSetup
from vqgan.prior.data import TokenClips, TokenLoader, Videos, alphabet_of
from vqgan.prior.figures import Bootstrap
from vqgan.prior.step import PriorStep
from vqgan.prior.transformer import MOST_CODES, Transformer
from vqgan.prior.validation import BITS, PriorValidation
from vqgan.reports.page import LiveReport
from vqgan.runs.criterion import Criterion
from vqgan.runs.provenance import make_provenance
from vqgan.runtime.collectives import refuse_shared_gpu
from vqgan.runtime.device import find_device, prepare, require_compiler, tune
from vqgan.runtime.process import ALONE, Process
from vqgan.training.finite import SkippedSteps
from vqgan.training.journal import Journal
from vqgan.training.outcomes import Outcomes
from vqgan.training.player import Player
from vqgan.training.schedules import Schedule
from vqgan.training.settings import LoopSettings
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_loggers, refuse_different

SMALLEST_DEVIATION = 1e-6  # of numbers that never change


@dataclass(kw_only=True, eq=False)
class PriorTrainer(Trainer):
    """Trains a prior, and knows what it is measured on in the end.

    Args:
        held_out: the videos.
        data: what was asked for.
        bootstrap: how intervals are found.
    """

    step: PriorStep
    loader: TokenLoader
    held_out: Videos
    data: TokenClips
    bootstrap: Bootstrap

    @property
    def prior(self) -> Transformer:
        """What is trained."""
        return self.step.prior.network

    def out_of_memory(self) -> StorageError:
        """What to say where memory has run out in the middle of a run."""
        return StorageError(
            f"Out of memory on {self.device}, with {self.loader.share} clips of {self.data.clip_times} times of codes "
            "at once. The newest checkpoint is good. Try a smaller data.batch_size with more trainer.accumulate, fewer "
            "data.clip_times, or trainer.precision=bf16."
        )


def make_trainer(
    config: DictConfig, folder: Path, process: Process = ALONE, loggers: Mapping[str, Logger] | None = None
) -> PriorTrainer:
    """Build all parts and wire them: first what is quickly checked, then the data, then the network."""
    settings: LoopSettings = build(config.trainer, "trainer")
    device = find_device(settings.device)
    refuse_shared_gpu(device)
    objective, schedule = Criterion(str(config.objective)), build(config.schedule, "schedule")
    check(objective.scalar == BITS, "objective", objective.name, f"-{BITS}, which is all that is measured")
    bootstrap: Bootstrap = build(config.bootstrap, "bootstrap")
    data: TokenClips = build(config.data, "data")
    divides = data.batch_size % process.count == 0
    check(divides, "data.batch_size", data.batch_size, f"a multiple of {process.count}, the number of processes")
    training, held_out = data.videos()
    fingerprint = data.fingerprint(training, held_out)
    refuse_different(fingerprint, config)
    prior = make_prior(config, training, held_out)
    optimizer: Optimizer = build(config.optimizer, "optimizer", params=prior.parameters())
    loader = TokenLoader(training, data.clip_times, data.batch_size, config.seed, process)
    facts = {
        "vqgan": version("vqgan"),
        "parameters": sum(p.numel() for p in prior.parameters()),
        "codebook_size": training.tokens.codebook_size,
        "files": len(training) + len(held_out),
        "data_fingerprint": fingerprint,
    }
    chosen = {**make_loggers(config, folder, facts, objective), **(loggers or {})} if process.is_first else {}
    skipped = SkippedSteps(settings.max_skipped_in_a_row, settings.max_skipped_fraction)
    validation = PriorValidation(
        held_out, data.clip_times, data.validation_clips, max(1, data.batch_size // process.count)
    )  # fmt: skip
    setup = PriorSetup(
        steps=settings.steps, order0=validation.order0, lr=config.optimizer.lr, dropout=config.prior.dropout
    )  # fmt: skip
    journal = Journal(
        settings=settings,
        objective=objective,
        outcomes=Outcomes(skipped, loader, settings.accumulate, folder, process.is_first),
        validation=validation,
        loggers=Loggers(chosen),
        advisor=PriorAdvisor(setup),
        report=LiveReport(folder),
        process=process,
    )
    return PriorTrainer(
        settings=settings,
        step=make_step(settings, prior, optimizer, schedule, config.seed, process),
        loader=loader,
        journal=journal,
        provenance=make_provenance(public_values(config), device, fingerprint),
        facts=facts,
        folder=folder,
        process=process,
        held_out=held_out,
        data=data,
        bootstrap=bootstrap,
    )


def make_prior(config: DictConfig, training: Videos, held_out: Videos) -> Transformer:
    """The network, with random weights that depend on the seed alone; side data are told at one scale.

    Raises:
        ConfigError: there are more codes than it can tell apart.
    """
    alphabet = alphabet_of(training, held_out)
    if alphabet.codebook_size > MOST_CODES:
        raise ConfigError(
            f"data.root={config.data.root} has {alphabet.codebook_size:,} codes an index, and a prior takes at most "
            f"{MOST_CODES:,}. vqgan pack writes them as several tokens each, factors=2, for other engines."
        )
    torch.manual_seed(config.seed)
    prior: Transformer = build(config.prior, "prior", alphabet=alphabet)
    if alphabet.numbers:
        mean, deviation = moments(training)
        prior.side_mean.copy_(mean)
        prior.side_scale.copy_(deviation.clamp(min=SMALLEST_DEVIATION))
    return prior


def moments(videos: Videos) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each of the numbers beside the times of videos, one video in memory at a time."""
    count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for number in range(len(videos)):
        rows = torch.from_numpy(videos.side(number)).double()
        count, total, squares = count + len(rows), total + rows.sum(0), squares + rows.square().sum(0)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0.0).sqrt()


def make_step(
    settings: LoopSettings,
    prior: Transformer,
    optimizer: Optimizer,
    schedule: Schedule,
    seed: int,
    process: Process = ALONE,
) -> PriorStep:
    """The algorithm, its network on its device and compiled as the settings say."""
    device = find_device(settings.device)
    tune(device, settings.precision)
    prepare(prior, device, channels_last=False)
    if settings.compile:
        require_compiler()
        prior.compile()
    player = Player(
        prior, optimizer, schedule, settings.accumulate, settings.clip_gradients, settings.weight_average
    )  # fmt: skip
    return PriorStep(settings=settings, prior=player, device=device, seed=seed, process=process)
