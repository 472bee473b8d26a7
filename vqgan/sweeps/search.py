"""A search: Optuna is asked what to try, a launcher of Hydra's runs it, and Optuna is told what the runs' folders say.

Needs the extra `optuna`. Optuna's part is its public ask and tell. A trial is open until its run is settled: one that
was stopped, killed or failed goes on at the next start of the search, with its values and in its folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from vqgan.errors import ConfigError, check
from vqgan.files.writing import replace_text
from vqgan.runs.criterion import scores_of
from vqgan.runs.status import SETTLED, status_of
from vqgan.sweeps.trials import Grid, build_part, objectives_of, open_study, plain_values, run_of

RESULTS = "optimization_results.yaml"  # in the search's folder, for programs


class Search:
    """One start of a search.

    Args:
        config: composed for it; its sweeper's values are `conf/hydra/sweeper/search.yaml`.
        launcher: runs jobs, and waits for them.
        typed: overrides; of a key the last one counts.

    Raises:
        ConfigError: there is nothing to choose from, or a number is out of range.
        StorageError: the storage cannot be reached.
    """

    def __init__(self, config: DictConfig, launcher: Launcher, typed: Sequence[str]) -> None:
        sweeper = config.hydra.sweeper
        self.launcher, self.folder = launcher, Path(config.hydra.sweep.dir)
        for key in ("n_jobs", "n_trials"):
            number = sweeper[key]
            check(isinstance(number, int) and number >= 1, f"hydra.sweeper.{key}", number, "a whole number, at least 1")
        self.at_once: int = sweeper.n_jobs
        self.most: int = sweeper.n_trials
        self.fixed, self.space = read_overrides(sweeper.params or {}, typed)
        if is_grid(sweeper.sampler):
            self.most = min(self.most, math.prod(map(len, grid_of(self.space).values())))
        self.objectives = objectives_of(config, sweeper)
        self.study = open_study(sweeper, self.objectives)
        self.study.sampler = make_sampler(sweeper.sampler, self.space, len(self.study.trials))
        self.tried: set[int] = set()  # runs, by this start

    def run(self) -> None:
        """Try what is open, then what is new, until there are enough trials; what fails is not tried twice."""
        self.settle()
        self.queue_again()
        while trials := self.next_trials():
            jobs = [self.overrides(trial) for trial in trials]
            returned = self.launcher.launch(jobs, initial_job_idx=len(self.tried))
            self.tried |= {run_of(trial) for trial in trials}
            self.settle()
            for job in returned:
                _ = job.return_value  # raises what has ended the search
        self.write_results()

    def settle(self) -> None:
        """Tell of each run that is settled, whoever ran it: SLURM's jobs outlive the command that waits for them."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            run = self.folder / str(run_of(trial))
            status = status_of(run)
            if status is None or status.state not in SETTLED:
                continue
            scores = scores_of(run, self.objectives) if status.state == "finished" else None
            if scores is not None:
                self.study.tell(trial.number, scores)
            else:
                pruned = status.state == "pruned"
                self.study.tell(trial.number, state=TrialState.PRUNED if pruned else TrialState.FAIL)

    def queue_again(self) -> None:
        """Queue trials that failed though their run is open, in the same folder: it is gone, or of an older version.

        So is one that has not all of its values, since the search was killed while they were drawn.
        """
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self.space.keys() <= trial.params.keys():
                self.study.tell(trial.number, state=TrialState.FAIL)
        last = {run_of(trial): trial for trial in self.study.trials}
        for run, trial in last.items():
            status = status_of(self.folder / str(run))
            if trial.state is TrialState.FAIL and (status is None or status.state not in SETTLED):
                self.study.enqueue_trial(trial.params, user_attrs={"run": run})

    def next_trials(self) -> list[FrozenTrial]:
        """As many as run at once, or as are left: of those that are open, then of those that are queued, then new."""
        trials = self.study.get_trials(deepcopy=False)
        found = [t for t in trials if t.state is TrialState.RUNNING and run_of(t) not in self.tried][: self.at_once]
        left = sum(trial.state is TrialState.WAITING for trial in trials)
        left += max(self.most - len({run_of(trial) for trial in trials}), 0)
        for _ in range(min(self.at_once - len(found), left)):
            number = self.study.ask(self.space).number
            found.append(self.study.trials[number])
        return found

    def overrides(self, trial: FrozenTrial) -> list[str]:
        """What is typed for a trial's job."""
        chosen = [f"{key}={trial.params[key]}" for key in self.space]
        return [*chosen, *self.fixed, f"hydra.sweep.subdir={run_of(trial)}"]

    def write_results(self) -> None:
        """Write the best trial, or with two objectives the best compromises: those that none beats in both.

        Raises:
            StorageError: they cannot be written.
        """
        complete = any(trial.state is TrialState.COMPLETE for trial in self.study.trials)
        values: dict[str, Any]
        if len(self.objectives) == 1:
            best = self.study.best_trial if complete else None
            values = {"best_params": best.params if best else {}, "best_value": best.value if best else None}
        else:
            front = self.study.best_trials if complete else []
            values = {"solutions": [{"run": run_of(t), "params": t.params, "values": t.values} for t in front]}
            print("\nThe best compromises, which no other job beats in both:" if front else "\nNo job is finished.")
            for t in sorted(front, key=lambda trial: trial.values[0], reverse=True):
                print(f"  job {run_of(t)}: {', '.join(o.text(v) for o, v in zip(self.objectives, t.values))}")
        replace_text(self.folder / RESULTS, yaml.safe_dump({"name": "optuna", **values}, sort_keys=False))


def read_overrides(params: Mapping[Any, Any], typed: Sequence[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """What all jobs have, and what is chosen for each; of a key the last override counts."""
    parser = OverridesParser.create()
    overrides = parser.parse_overrides([*(f"{key!s}={value}" for key, value in params.items()), *typed])
    last = {o.get_key_element(): o for o in overrides}
    fixed = [str(o.input_line) for o in last.values() if not o.is_sweep_override()]
    space = {key: distribution(o) for key, o in last.items() if o.is_sweep_override()}
    if not space:
        raise ConfigError(
            "A search needs values to choose from: optimizer.lr='tag(log,interval(1e-4,1e-2))' or model=vqmodel,emavq."
        )
    return fixed, space


def distribution(override: Override) -> BaseDistribution:
    """Optuna's name of what is written as `interval(a,b)`, `tag(log,interval(a,b))`, `range(a,b,step)` or `a,b,c`."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        log = "log" in value.tags
        sensible = value.start < value.end and (value.start > 0 or not log)
        wanted = "an interval from a smaller to a larger number, of positive ones if it is log"
        check(sensible, str(override.get_key_element()), override.input_line, wanted)
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(value.start, value.end, log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        # Exactly: what adds up floats is off in the last digits, and may have one too many.
        first, stop, step = (Decimal(str(number)) for number in (value.start, value.stop, value.step))
        last = first + step * (math.ceil((stop - first) / step) - 1)
        low, high, step = min(first, last), max(first, last), abs(step)
        if low == int(low) and step == int(step):
            return IntDistribution(int(low), int(high), step=int(step))
        return FloatDistribution(float(low), float(high), step=float(step))
    choices: list[Any] = list(override.sweep_iterator(transformer=Transformer.encode))
    return CategoricalDistribution(choices)


def grid_of(space: Mapping[str, BaseDistribution]) -> dict[str, list[Any]]:
    """All values of each key.

    Raises:
        ConfigError: of one there is no end.
    """
    grid: dict[str, list[Any]] = {}
    for key, of_key in space.items():
        if isinstance(of_key, CategoricalDistribution):
            grid[key] = list(of_key.choices)
        elif isinstance(of_key, IntDistribution | FloatDistribution) and of_key.step is not None and not of_key.log:
            low, high, step = (Decimal(str(number)) for number in (of_key.low, of_key.high, of_key.step))
            grid[key] = [type(of_key.low)(low + number * step) for number in range(int((high - low) / step) + 1)]
        else:
            raise ConfigError(f"hydra/sweeper/sampler=grid takes choices and ranges, and {key} is an interval.")
    return grid


def make_sampler(values: DictConfig, space: Mapping[str, BaseDistribution], trials: int) -> BaseSampler:
    """What decides on the next trial, after so many."""
    plain = plain_values(values)
    if is_grid(values):
        plain["search_space"] = grid_of(space)
    elif plain.get("seed") is not None:
        plain["seed"] += trials  # else the same values would be drawn again
    sampler: BaseSampler = build_part(plain, "hydra.sweeper.sampler", BaseSampler)
    return sampler


def is_grid(sampler: DictConfig) -> bool:
    """Whether all combinations are to be tried."""
    return bool(sampler._target_ == f"{Grid.__module__}.{Grid.__name__}")
