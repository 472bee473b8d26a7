"""One job of a sweep: done already, or trained; whatever becomes of it, the sweep goes on."""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vqgan.config.user_errors import USER_ERRORS, in_our_words
from vqgan.errors import PrunedError, RunFolderInUseError, StoppedError, StorageError
from vqgan.files.writing import replace_text
from vqgan.runs.criterion import Criterion
from vqgan.runs.status import SETTLED, record_end, status_of
from vqgan.runs.sweep import is_rate, is_search, own_overrides, refuse_another_job, swept_overrides
from vqgan.runtime.process import this_process
from vqgan.runtime.signals import StopSignals
from vqgan.sweeps.sweep import values_of
from vqgan.text import without_secrets


def run_job(config: DictConfig, hydra_config: DictConfig) -> float | None:
    """Train one job, or take what is there of it.

    A run that is settled is left as it is, in milliseconds and without building anything; one that was stopped,
    interrupted or failed goes on from its checkpoint.

    Returns:
        The run's objective, the larger the better; None if it has none: it failed, or was pruned.

    Raises:
        StoppedError: a signal came; this ends the sweep.
        ConfigError: the folder is another job's; so does this.
    """
    objective = Criterion(config.objective)
    typed: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)  # resolved it could hold secrets
    sweep = Path(hydra_config.sweep.dir).absolute()
    folder = Path(hydra_config.runtime.output_dir)
    config.run_dir = str(folder)
    refuse_another_job(folder, typed)
    status = status_of(folder)
    label = f"Job {folder.name}: {values_of(swept_overrides(sweep, typed))}"
    stop = StopSignals()
    try:
        with stop, stop.at_once():
            if status is not None and status.state in SETTLED:
                print(f"{label} ({status.state} before)", flush=True)
            else:
                print(f"\n{label}", flush=True)
                _train(config, own_overrides(typed), hydra_config)
            if is_rate(hydra_config) and _is_finished(folder):
                from vqgan.sweeps import rate

                rate.Rate.of(hydra_config).follow(config, folder)
    except StoppedError as error:
        raise StoppedError(f"{error}, or with all of the sweep: its own command, with run_dir={sweep}") from None
    except PrunedError as error:
        print(f"\n{error}", flush=True)
    except Exception as error:
        _take_down(error, folder, typed)
        return None
    finally:
        gc.collect()  # networks sit in circles of references, and the next job needs their memory
    if stop.requested:  # too late for the run to stop, which has finished meanwhile
        said = f"Stopped by {stop.name}; job {folder.name} is over."
        raise StoppedError(f"{said} Go on with the sweep's own command, with run_dir={sweep}")
    return objective.best(folder) if _is_finished(folder) else None


def _is_finished(folder: Path) -> bool:
    status = status_of(folder)
    return status is not None and status.state == "finished"


def _train(config: DictConfig, typed: Sequence[str], hydra_config: DictConfig) -> None:
    if "prior" in config:
        from vqgan.prior import run as train  # here, so that settled jobs need not wait for torch
    else:
        from vqgan.training import run as train  # type: ignore[no-redef]

    loggers = {}
    if is_search(hydra_config):
        from vqgan.sweeps import trials  # Optuna is an extra

        trial = trials.find_trial(hydra_config.sweeper, int(hydra_config.sweep.subdir))
        objectives = trials.objectives_of(config, hydra_config.sweeper)
        loggers["pruning"] = trials.Pruning(trial, objectives, config.trainer.steps)
    train.run(config, typed, loggers)


def _take_down(error: Exception, folder: Path, typed: Sequence[str]) -> None:
    """Print what went wrong, and keep it in the job's folder, which a wrong config or data left as it was before."""
    if isinstance(error, USER_ERRORS):
        known: Exception = in_our_words(error, typed)
        print(f"\nJob {folder.name}: {without_secrets(str(known), typed)}", file=sys.stderr, flush=True)
    else:
        known = error
        traceback.print_exc()
    if isinstance(known, RunFolderInUseError) or not this_process().is_first:
        return
    with contextlib.suppress(StorageError, OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "overrides.yaml").exists():
            replace_text(folder / "overrides.yaml", OmegaConf.to_yaml(own_overrides(typed)))
        record_end(folder, known, typed)
