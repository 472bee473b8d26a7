"""The trials of a search: where Optuna keeps them, and how a run tells of itself while it runs.

Needs the extra `optuna`. Jobs may run in other processes, and on other machines that reach the storage: a job knows its
trial by the number of its folder.
"""

from __future__ import annotations

import inspect
import logging
import pkgutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import GridSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from vqgan.errors import ConfigError, PrunedError, StorageError
from vqgan.loggers import Logger
from vqgan.runs.criterion import Criterion

optuna.logging.set_verbosity(logging.WARNING)
JOURNAL = "journal:///"  # then a path, as after `sqlite:///`
AWAY = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError)


class Grid(GridSampler):
    """Every combination once. Optuna's own would end a loop of Optuna's after the last one, and there is none."""

    def after_trial(self, *_: object) -> None:
        """Go on: the search counts its trials."""


def objectives_of(config: DictConfig, sweeper: DictConfig) -> list[Criterion]:
    """What a search maximizes: `objective`, and what is against it."""
    return [Criterion(name) for name in (config.objective, sweeper.against) if name is not None]


def open_storage(url: str) -> BaseStorage:
    """Open a storage, or make it; one of an older version of Optuna is brought up to date.

    Args:
        url: of SQLAlchemy, as `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`; or `journal:///FILE`.

    Raises:
        StorageError: it cannot be reached, or a newer version of Optuna made it.
    """
    try:
        if url.startswith(JOURNAL):
            return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
        storage = RDBStorage(url, skip_compatibility_check=True)
        if storage.get_current_version() != storage.get_head_version():
            _bring_up_to_date(storage)
        return storage
    except (SQLAlchemyError, ImportError, RuntimeError, OSError) as error:
        shown = make_url(url).render_as_string(hide_password=True) if "://" in url else url
        raise StorageError(
            f"hydra.sweeper.storage.url={shown} cannot be opened: {' '.join(str(error).split())}"
        ) from error


def _bring_up_to_date(storage: RDBStorage) -> None:
    found = storage.get_current_version()
    if found not in storage.get_all_versions():
        raise RuntimeError(f"a newer version of Optuna made it ({found}): pip install -U optuna.")
    print(f"The search was begun with an older version of Optuna; its storage is brought up to date ({found}).")
    root, quiet = logging.getLogger(), logging.NullHandler()
    root.addHandler(quiet)  # where there is none, Alembic would set up all of logging anew
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of the distributions that it replaces
            storage.upgrade()
    finally:
        root.removeHandler(quiet)


def open_study(sweeper: DictConfig, objectives: Sequence[Criterion]) -> optuna.Study:
    """The study of a search, or a new one.

    Raises:
        StorageError: its storage cannot be reached.
        ConfigError: it was begun with another number of objectives.
    """
    study = optuna.create_study(
        study_name=sweeper.study_name, storage=open_storage(sweeper.storage.url),
        directions=["maximize"] * len(objectives), load_if_exists=True,
    )  # fmt: skip
    if len(study.directions) != len(objectives):
        begun = "without" if len(study.directions) == 1 else "with"
        raise ConfigError(f"hydra.sweeper.against: this search was begun {begun} a second objective; so it must go on.")
    return study


def plain_values(node: DictConfig) -> dict[str, Any]:
    """The values of a section, without references to others."""
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def build_part(values: Mapping[str, Any], key: str, kind: type) -> Any:
    """Build one of Optuna's samplers or pruners, or somebody's own; one that is around another takes it as a section.

    Raises:
        ConfigError: `_target_` is no such class, or it refuses its values.
    """
    name = values.get("_target_")
    try:
        target = pkgutil.resolve_name(str(name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}._target_ is {name!r}, which does not exist: {error}.") from None
    if not (inspect.isclass(target) and issubclass(target, kind)):
        raise ConfigError(f"{key}._target_ is {name!r}, which is no subclass of Optuna's {kind.__name__}.")
    within = {
        part: build_part(value, f"{key}.{part}", kind) if isinstance(value, Mapping) and "_target_" in value else value
        for part, value in values.items()
        if part != "_target_"
    }
    try:
        return target(**within)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key} cannot be built: {name}: {error}.") from error


def run_of(trial: FrozenTrial) -> int:
    """The number of its run's folder: its own, or of the trial that it tries again."""
    again = trial.user_attrs.get("run", trial.system_attrs.get("failed_trial"))  # the latter is of older versions
    return trial.number if again is None else int(again)


@dataclass(frozen=True)
class Trial:
    """A trial that is running, as its job sees it.

    Args:
        study: that it is of.
        storage: of the study.
        pruner: says which trials are hopeless.
        number: its own, in the study.
    """

    study: optuna.Study
    storage: BaseStorage
    pruner: BasePruner
    number: int

    def is_hopeless(self, step: int, value: float) -> bool:
        """Report an evaluation, and ask the pruner."""
        study_id = self.storage.get_study_id_from_name(self.study.study_name)
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, self.number)
        if step not in self.storage.get_trial(trial_id).intermediate_values:  # else of a run that was continued
            self.storage.set_trial_intermediate_value(trial_id, step, value)
        return self.pruner.prune(self.study, self.storage.get_trial(trial_id))


def find_trial(sweeper: DictConfig, run: int) -> Trial:
    """The trial of a job, by the number of its run's folder.

    Raises:
        ConfigError: the study has no such trial that is open.
        StorageError: the storage cannot be reached.
    """
    storage = open_storage(sweeper.storage.url)
    key, values = "hydra.sweeper.storage.pruner", sweeper.storage.pruner
    pruner = NopPruner() if values is None else build_part(plain_values(values), key, BasePruner)
    study = optuna.load_study(study_name=sweeper.study_name, storage=storage, pruner=pruner)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if run_of(trial) == run:
            return Trial(study, storage, pruner, trial.number)
    raise ConfigError(f"The search {sweeper.study_name} has no open trial for run {run}.")


class Pruning(Logger):
    """Reports each evaluation of a run to its search, and stops the run if it is hopeless.

    Args:
        trial: of the run.
        objectives: what the search maximizes; with several of them Optuna has no pruning, and nothing is reported.
        steps: of the whole run; after its last one there is nothing to be stopped.
    """

    def __init__(self, trial: Trial, objectives: Sequence[Criterion], steps: int) -> None:
        self.trial, self.objectives, self.steps = trial, objectives, steps

    def log(self, step: int, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:  # noqa: ARG002
        """Look at a row that has the objective.

        Raises:
            PrunedError: the run is hopeless.
            ConfigError: an evaluation has no such scalar.
        """
        measured = sorted(name for name in scalars if name.startswith("validation/"))
        for objective, key in zip(self.objectives, ("objective", "hydra.sweeper.against")):
            if measured and objective.scalar not in scalars:
                raise ConfigError(
                    f"{key}={objective.scalar}: no such scalar is measured; there are: {', '.join(measured)}."
                )
        objective = self.objectives[0]
        value = objective.score(step, scalars)
        if value is None or len(self.objectives) > 1:
            return
        try:
            hopeless = self.trial.is_hopeless(step, value)
        except AWAY as error:  # training need not end because a server is away
            warnings.warn(f"The search was not told of step {step}: {str(error).splitlines()[0]}", stacklevel=2)
            return
        if hopeless and step < self.steps:
            raise PrunedError(f"Pruned after step {step}: {objective.text(value)} promises less than others.")
