"""What lets a search by Optuna go on, and stops hopeless trials."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, LogUniformDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from vqgan.errors import ConfigError, PrunedError, StorageError
from vqgan.runs.criterion import Criterion
from vqgan.sweeps import search
from vqgan.sweeps.search import Pruning, Trial, Trials

LEARNING_RATE = LogUniformDistribution(1e-4, 1e-2)
MODEL = CategoricalDistribution(["vqmodel", "emavq"])


@pytest.fixture
def sweeper(tmp_path: Path) -> DictConfig:
    """The part of Hydra's config that describes a search of six trials."""
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 10}
    storage = {"_target_": "vqgan.sweeps.search.Trials", "url": f"sqlite:///{tmp_path}/study.db", "pruner": pruner}
    values = {"n_trials": 6, "study_name": "s", "storage": storage, "sampler": {"seed": 5}, "direction": "maximize"}
    return OmegaConf.create(values)


@pytest.fixture
def study(sweeper: DictConfig) -> optuna.Study:
    """As Hydra's sweeper makes it."""
    return optuna.create_study(
        study_name="s", storage=Trials(sweeper.storage.url, None), directions=["maximize"], load_if_exists=True
    )


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial._suggest("optimizer.lr", LEARNING_RATE)
    trial._suggest("model", MODEL)
    return trial


def job(sweeper: DictConfig, folder: Path, trial: optuna.Trial) -> Trial:
    """What the job of a trial finds, in a process of its own for all that it knows."""
    task = [f"{key}={value}" for key, value in trial.params.items()]
    config = {"sweeper": sweeper, "sweep": {"dir": str(folder)}, "overrides": {"task": [*task, "data=videos"]}}
    return search.find_trial(OmegaConf.create(config))


def write_status(folder: Path, state: str) -> None:
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"state": state, "message": None, "exit_code": 0}))


def test_a_restart_queues_what_ran_and_what_failed(sweeper: DictConfig, study: optuna.Study, tmp_path: Path) -> None:
    done, diverged, failed, running = (ask(study) for _ in range(4))
    study.tell(done, 20.0)
    for trial, state in ((diverged, "diverged"), (failed, "failed"), (running, "running")):
        write_status(tmp_path / str(trial.number), state)
    for trial in (diverged, failed):
        study.tell(trial, state=TrialState.FAIL)
    search.prepare(sweeper, tmp_path)
    assert sweeper.n_trials == 4  # of six two are settled
    assert sweeper.sampler.seed == 9
    again = optuna.load_study("s", Trials(sweeper.storage.url, None))
    trials = [ask(again) for _ in range(3)]
    assert [trial.number for trial in trials] == [3, 4, 5]
    assert [search.first_number(again.trials[trial.number]) for trial in trials] == [3, 2, 5]
    assert [trial.params for trial in trials[:2]] == [running.params, failed.params]

    again.tell(trials[1], state=TrialState.FAIL)  # and once more, from the same folder
    search.prepare(sweeper, tmp_path)
    last = optuna.load_study("s", Trials(sweeper.storage.url, None)).trials[-1]
    assert (last.number, last.state, search.first_number(last)) == (6, TrialState.WAITING, 2)
    assert last.params == failed.params


def test_the_first_start_has_nothing_to_prepare(sweeper: DictConfig, tmp_path: Path) -> None:
    search.prepare(sweeper, tmp_path)
    assert (sweeper.n_trials, sweeper.sampler.seed) == (6, 5)


def test_a_job_finds_its_trial_by_its_values(sweeper: DictConfig, study: optuna.Study, tmp_path: Path) -> None:
    trials = [ask(study) for _ in range(3)]
    assert [job(sweeper, tmp_path, trial).number for trial in trials] == [0, 1, 2]
    study.tell(trials[1], 1.0)
    with pytest.raises(ConfigError, match="no running trial with the values of this job"):
        job(sweeper, tmp_path, trials[1])


def test_of_two_trials_with_the_same_values_one_is_found_whose_run_is_to_come(
    sweeper: DictConfig, study: optuna.Study, tmp_path: Path
) -> None:
    first = ask(study)
    with pytest.warns(ExperimentalWarning):
        study.enqueue_trial(first.params)
    second = ask(study)
    assert first.params == second.params
    write_status(tmp_path / "0", "finished")
    assert job(sweeper, tmp_path, first).number == 1


def test_a_hopeless_run_is_stopped_and_its_trial_pruned(
    sweeper: DictConfig, study: optuna.Study, tmp_path: Path
) -> None:
    good, bad = ask(study), ask(study)
    its = job(sweeper, tmp_path, good)
    logger = Pruning(its, Criterion("validation/psnr"), steps=30)
    for step, psnr in ((0, 30.0), (10, 20.0), (20, 22.0)):
        logger.log(step, {"validation/psnr": psnr}, {})
        logger.log(step, {"validation/psnr": psnr}, {})  # as where a run is continued
        logger.log(step + 1, {"train/total": 1.0}, {})
    assert its.storage.get_trial(good._trial_id).intermediate_values == {10: 20.0, 20: 22.0}
    study.tell(good, 22.0)

    its = job(sweeper, tmp_path, bad)
    logger = Pruning(its, Criterion("validation/psnr"), steps=20)
    logger.log(0, {"validation/psnr": 31.0}, {})  # of the untrained network, and no result
    with pytest.raises(PrunedError, match=r"Pruned after step 10: validation/psnr 19.5 "):
        logger.log(10, {"validation/psnr": 19.5}, {})
    logger.log(20, {"validation/psnr": 5.0}, {})  # after the last step there is nothing to be stopped
    its.close_pruned()
    study.tell(bad, state=TrialState.FAIL)  # what the sweeper makes of a job without a value
    pruned = study.trials[1]
    assert (pruned.state, pruned.value, pruned.intermediate_values) == (TrialState.PRUNED, 5.0, {10: 19.5, 20: 5.0})
    assert optuna.load_study("s", Trials(sweeper.storage.url, None)).trials[1].state is TrialState.PRUNED


def test_an_objective_that_is_not_measured_is_named(sweeper: DictConfig, study: optuna.Study, tmp_path: Path) -> None:
    logger = Pruning(job(sweeper, tmp_path, ask(study)), Criterion("-validation/lpips"), steps=9)
    with pytest.raises(ConfigError, match="objective=validation/lpips: no such scalar is measured; there are: validat"):
        logger.log(0, {"validation/psnr": 3.0, "train/total": 1.0}, {})


def test_a_server_that_is_away_does_not_end_a_run(
    sweeper: DictConfig, study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server is away"))

    logger = Pruning(job(sweeper, tmp_path, ask(study)), Criterion("validation/psnr"), steps=9)
    monkeypatch.setattr(Trials, "set_trial_intermediate_value", away)
    with pytest.warns(UserWarning, match="The search was not told of step 3: .*the server is away"):
        logger.log(3, {"validation/psnr": 3.0}, {})


def test_a_search_without_a_complete_trial_has_no_best_one(study: optuna.Study) -> None:
    study.tell(ask(study), state=TrialState.FAIL)
    assert (study.best_trial.params, study.best_trial.value) == ({}, None)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("mysql://me@host/x", ConfigError, "hydra.sweeper.storage.url is of MySQL"),
        ("nonsense", StorageError, "hydra.sweeper.storage.url=nonsense cannot be opened: "),
        ("sqlite:////nowhere/study.db", StorageError, "cannot be opened: "),
        ("postgresql://me:hunter2@127.0.0.1:1/x", StorageError, r"me:\*\*\*@127.0.0.1:1/x cannot be opened: "),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Trials(url, None)
    assert "hunter2" not in str(caught.value)
