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
from vqgan.runs.status import status_after
from vqgan.runtime.collectives import Agreement, broadcast, process_group, raising_lost_process
from vqgan.runtime.device import SMALLER_RUN, memory_to_begin
from vqgan.runtime.signals import StopSignals
from vqgan.text import table
from vqgan.training import summary
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer


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
                print(f"Training {config.name}\n{table(summary.beginning(trainer, config))}", flush=True)
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
                print(f"\nDone.\n{table(summary.end(trainer))}", flush=True)
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
