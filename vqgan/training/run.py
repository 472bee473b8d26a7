"""One run from its config to its last word."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from omegaconf import DictConfig, OmegaConf

from vqgan.config.build import check_top_level
from vqgan.data.reading.own_folders import refuse_data_in
from vqgan.errors import VQGANError
from vqgan.loggers import Logger
from vqgan.reports.page import write_report
from vqgan.runs.folder import RunFolder
from vqgan.runs.status import status_after
from vqgan.runtime.collectives import Agreement, broadcast, process_group, raising_lost_process
from vqgan.runtime.device import SMALLER_RUN, memory_to_begin
from vqgan.runtime.process import Process
from vqgan.runtime.signals import StopRequested, StopSignals
from vqgan.text import table
from vqgan.training import summary
from vqgan.training.tokenizer import TokenizerTrainer
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

T = TypeVar("T", bound=Trainer)
Rows = list[tuple[str, str]]  # of a table


@dataclass(frozen=True)
class Kind(Generic[T]):
    """What is trained.

    Args:
        make: builds it.
        beginning: what a person reads before the first step.
        end: and after the last one.
        after: what is left to do then, by all processes; None: nothing.
    """

    make: Callable[[DictConfig, Path, Process, Mapping[str, Logger] | None], T]
    beginning: Callable[[T, DictConfig], Rows]
    end: Callable[[T], Rows]
    after: Callable[[T], Any] | None


TOKENIZER = Kind(make_trainer, summary.beginning, summary.end, None)


def run(
    config: DictConfig, overrides: Sequence[str] = (), loggers: Mapping[str, Logger] | None = None
) -> TokenizerTrainer:
    """Train a tokenizer; see `run_as`. The config is composed from `conf/train.yaml`."""
    return run_as(TOKENIZER, config, overrides, loggers)


def run_as(
    kind: Kind[T], config: DictConfig, overrides: Sequence[str], loggers: Mapping[str, Logger] | None = None
) -> T:
    """Train what the config describes, in the folder `config.run_dir`; a run that is there already goes on.

    Several processes that `torchrun` has started train one run, in the first one's folder.

    Args:
        kind: what it is.
        config: composed from the yaml of that.
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
                trainer = kind.make(config, path, process, loggers)
            if process.is_first:
                print(f"Training {config.name}\n{table(kind.beginning(trainer, config))}", flush=True)
            # Until the very end: one more signal must not disturb the few seconds in which a stopped run ends.
            with StopSignals(Agreement() if process.count > 1 else None) as stop:
                try:
                    trainer.resume()
                    if folder is not None:
                        folder.keep()
                    trainer.run(stop)
                    _after(kind, trainer, stop)
                except BaseException as error:
                    with contextlib.suppress(VQGANError, OSError):  # the first error is the one to read
                        _finish(trainer, error)
                    raise
            _finish(trainer)
            if process.is_first:
                print(f"\nDone.\n{table(kind.end(trainer))}", flush=True)
    return trainer


def _after(kind: Kind[T], trainer: T, stop: StopSignals) -> None:
    if kind.after is None:
        return
    try:
        with stop.at_once():
            kind.after(trainer)
    except StopRequested as signal:
        raise trainer.stopped(f"Stopped by {signal} after the last step; everything is saved.") from None


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
