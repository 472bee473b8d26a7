"""A search by Optuna, whose sweeper decides what is tried: here is what lets it go on, and stops hopeless trials.

Needs the extra `optuna`. Jobs may run in other processes, and know their trial by the storage, the study's name and the
values that they were given.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import hydra
import optuna
from omegaconf import DictConfig, flag_override
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage, RetryFailedTrialCallback, _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from vqgan.errors import ConfigError, PrunedError, StorageError
from vqgan.loggers import Logger
from vqgan.runs.criterion import Criterion
from vqgan.runs.status import SETTLED, status_of

optuna.logging.set_verbosity(logging.WARNING)
# It warns of each trial without a value, which has told by itself what became of it.
logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)


class Trials(_CachedStorage):
    """Where trials are kept: Optuna's storage, with what its sweeper for Hydra cannot say.

    Args:
        url: of SQLAlchemy, as `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`.
        pruner: decides which trials are hopeless; null for none.

    Raises:
        ConfigError: a database that keeps numbers in single precision, so that no trial would be found by its values.
        StorageError: the database cannot be reached.
    """

    def __init__(self, url: str, pruner: BasePruner | None) -> None:
        if url.startswith(("mysql", "mariadb")):
            raise ConfigError(
                "hydra.sweeper.storage.url is of MySQL, where this version of Optuna keeps values in single precision; "
                "choose PostgreSQL or SQLite."
            )
        try:
            super().__init__(RDBStorage(url))
        except (SQLAlchemyError, ImportError) as error:
            shown = make_url(url).render_as_string(hide_password=True) if "://" in url else url
            raise StorageError(
                f"hydra.sweeper.storage.url={shown} cannot be opened: {' '.join(str(error).split())}"
            ) from error
        self.pruner = pruner or optuna.pruners.NopPruner()

    def set_trial_state(self, trial_id: int, state: TrialState) -> bool:
        """Set it, unless the trial's own run has ended the trial as pruned: the sweeper takes that for a failure."""
        if state is TrialState.FAIL and self._backend.get_trial(trial_id).state is TrialState.PRUNED:
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            self._studies[study_id].owned_or_finished_trial_ids.discard(trial_id)  # what the run reported is read anew
            return True
        return super().set_trial_state(trial_id, state)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The best one; where none is complete one without values, since the sweeper, when it ends, asks."""
        try:
            return super().get_best_trial(study_id)
        except ValueError:
            return FrozenTrial(
                number=-1, trial_id=-1, state=TrialState.FAIL, value=None, values=None, datetime_start=None,
                datetime_complete=None, params={}, distributions={}, user_attrs={}, system_attrs={},
                intermediate_values={},
            )  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A trial that is running, as its job sees it."""

    study: optuna.Study
    storage: Trials
    frozen: FrozenTrial

    @property
    def number(self) -> int:
        """The name of its run's folder: of the first try, where this is another one."""
        return first_number(self.frozen)

    def is_hopeless(self, step: int, value: float) -> bool:
        """Report an evaluation, and ask the pruner."""
        trial_id = self.frozen._trial_id
        if step not in self.storage.get_trial(trial_id).intermediate_values:  # else of a run that was continued
            self.storage.set_trial_intermediate_value(trial_id, step, value)
        return self.storage.pruner.prune(self.study, self.storage.get_trial(trial_id))

    def close_pruned(self) -> None:
        """End it as pruned."""
        self.study.tell(self.frozen.number, state=TrialState.PRUNED)


class Pruning(Logger):
    """Reports each evaluation of a run to its search, and stops the run if it is hopeless.

    Args:
        trial: of the run.
        objective: what the search maximizes.
        steps: of the whole run; after its last one there is nothing to be stopped.
    """

    def __init__(self, trial: Trial, objective: Criterion, steps: int) -> None:
        self.trial, self.objective, self.steps = trial, objective, steps

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:  # noqa: ARG002
        """Look at a row that has the objective.

        Raises:
            PrunedError: the run is hopeless.
            ConfigError: an evaluation has no such scalar.
        """
        measured = sorted(name for name in scalars if name.startswith("validation/"))
        if measured and self.objective.scalar not in scalars:
            raise ConfigError(
                f"objective={self.objective.scalar}: no such scalar is measured; there are: {', '.join(measured)}."
            )
        value = self.objective.score(step, scalars)
        if value is None:
            return
        try:
            hopeless = self.trial.is_hopeless(step, value)
        except (SQLAlchemyError, StorageInternalError) as error:  # training need not end because a server is away
            warnings.warn(f"The search was not told of step {step}: {str(error).splitlines()[0]}", stacklevel=2)
            return
        if hopeless and step < self.steps:
            raise PrunedError(f"Pruned after step {step}: {self.objective.text(value)} promises less than others.")


def prepare(sweeper: DictConfig, folder: Path) -> None:
    """Let a search go on in a folder that no other process holds.

    Trials that were running are queued to go on, and those whose runs failed to be tried again, with the same values
    and in the same folders; `n_trials` becomes the number of those that are left of it.

    Raises:
        StorageError: the database cannot be reached.
    """
    storage: Trials = hydra.utils.instantiate(sweeper.storage)
    try:
        study = optuna.load_study(sweeper.study_name, storage)
    except KeyError:
        return  # there was no start of it yet
    trials = study.get_trials()
    last_tries = {first_number(trial): trial for trial in trials}
    done = 0
    for number, trial in last_tries.items():
        status = status_of(folder / str(number))
        if trial.state is TrialState.RUNNING:
            storage.set_trial_state(trial._trial_id, TrialState.WAITING)
        elif trial.state is TrialState.FAIL and (status is None or status.state not in SETTLED):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                RetryFailedTrialCallback()(study, trial)
        elif trial.state.is_finished():
            done += 1
    with flag_override(sweeper, ["readonly", "struct"], False):
        sweeper.n_trials = max(sweeper.n_trials - done, 0)
        if sweeper.sampler.get("seed") is not None:
            sweeper.sampler.seed += len(trials)  # else the same random values would be tried again


def find_trial(hydra_config: DictConfig) -> Trial:
    """The trial of a job.

    Of several with the same values, which have the same results, one that no run is settled for.

    Raises:
        ConfigError: no trial of the study has the job's values.
    """
    sweeper = hydra_config.sweeper
    storage: Trials = hydra.utils.instantiate(sweeper.storage)
    study = optuna.load_study(sweeper.study_name, storage, pruner=storage.pruner)
    typed = set(hydra_config.overrides.task)
    mine = [
        trial
        for trial in study.get_trials(states=(TrialState.RUNNING,))
        if {f"{key}={value}" for key, value in trial.params.items()} <= typed  # as the sweeper writes them
    ]
    if not mine:
        raise ConfigError(f"The study {sweeper.study_name} has no running trial with the values of this job.")
    return Trial(study, storage, min(mine, key=lambda trial: _is_settled(hydra_config, trial)))


def first_number(trial: FrozenTrial) -> int:
    """The number of the trial, or of the failed one that it tries again."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def _is_settled(hydra_config: DictConfig, trial: FrozenTrial) -> bool:
    status = status_of(Path(hydra_config.sweep.dir) / str(first_number(trial)))
    return status is not None and status.state in (*SETTLED, "running")
