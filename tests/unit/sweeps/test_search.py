"""A search asks Optuna, has a launcher run what it says, and tells it what the folders hold; killed, it goes on."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from vqgan.config.build import conf_dir
from vqgan.errors import ConfigError, PrunedError, StorageError
from vqgan.runs.criterion import Criterion, scores_of
from vqgan.runs.status import status_of
from vqgan.sweeps import trials
from vqgan.sweeps.search import Search, distribution, grid_of
from vqgan.sweeps.trials import Pruning, Trial

LEARNING_RATE = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
PSNR, BITS = "validation/psnr", "validation/bits_per_pixel"
SQLITE, JOURNAL = (
    "sqlite:///${hydra.sweep.dir}/study.db",
    "journal:///${hydra.sweep.dir}/study.log",
)  # this one is quick
TPE = "optuna.samplers.TPESampler"
OF_2_10 = Path(__file__).with_name("study_of_optuna_2_10.sql")


class Killed(BaseException):
    """What no code expects."""


def write_run(folder: Path, state: str, *rows: dict[str, float]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "message": None, "exit_code": 0}))
    measured = [{"step": 10 * number, **row} for number, row in enumerate(rows, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in measured))


class Launcher:
    """Stands for Hydra's: what a job does is a function of its values, which returns how it ends and what it measures.

    A search is killed in job `killed_at` of those that it launches.
    """

    def __init__(self, folder: Path, end: Callable[[dict[str, Any]], tuple[str, float]], killed_at: int = -1) -> None:
        self.folder, self.end, self.killed_at = folder, end, killed_at
        self.jobs: list[dict[str, Any]] = []
        self.batches: list[int] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        assert initial_job_idx == len(self.jobs)
        self.batches.append(len(job_overrides))
        returned = []
        for overrides in job_overrides:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
            values = {o.get_key_element(): o.value() for o in parsed}
            if len(self.jobs) == self.killed_at:
                raise Killed
            self.jobs.append(values)
            state, psnr = self.end(values)
            write_run(self.folder / str(values["hydra.sweep.subdir"]), state, {PSNR: psnr, BITS: 1 / psnr})
            returned.append(JobReturn(status=JobStatus.COMPLETED))
        return returned


def config_of(folder: Path, url: str = JOURNAL, **sweeper: Any) -> DictConfig:
    """What a search reads of Hydra's config, from the file that users have."""
    groups = conf_dir() / "hydra" / "sweeper"
    sampler = sweeper.pop("sampler", "tpe")
    sampler = OmegaConf.load(groups / "sampler" / f"{sampler}.yaml") if isinstance(sampler, str) else sampler
    values = OmegaConf.merge(OmegaConf.load(groups / "search.yaml"), {"sampler": sampler}, {"n_trials": 6}, sweeper)
    values.storage.url = url
    return OmegaConf.create(
        {
            "hydra": {"sweeper": values, "sweep": {"dir": str(folder)}},
            "objective": PSNR, "seed": 5, "trainer": {"evaluate_every": 10},
        }
    )  # fmt: skip


def study_of(config: DictConfig) -> list[FrozenTrial]:
    storage = trials.open_storage(config.hydra.sweeper.storage.url)
    return optuna.load_study(study_name=config.hydra.sweeper.study_name, storage=storage).trials


def finishes(values: dict[str, Any]) -> tuple[str, float]:
    return "finished", 10.0 + values["optimizer.lr"]


@pytest.mark.parametrize("url", [SQLITE, JOURNAL])
def test_a_search_finds_what_is_best_and_does_nothing_twice(tmp_path: Path, url: str) -> None:
    config = config_of(tmp_path, url, n_jobs=4)
    launcher = Launcher(tmp_path, finishes)
    Search(config, launcher, [LEARNING_RATE, "data=videos"]).run()
    assert launcher.batches == [4, 2]
    assert [job["hydra.sweep.subdir"] for job in launcher.jobs] == list(range(6))
    assert {job["data"] for job in launcher.jobs} == {"videos"}
    found = study_of(config)
    assert [trial.params["optimizer.lr"] for trial in found] == [job["optimizer.lr"] for job in launcher.jobs]
    assert [trial.value for trial in found] == pytest.approx([10 + job["optimizer.lr"] for job in launcher.jobs])
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(trial.value for trial in found)
    assert 10 + best["best_params"]["optimizer.lr"] == best["best_value"]

    again = Launcher(tmp_path, finishes)
    Search(config, again, [LEARNING_RATE, "data=videos"]).run()
    assert again.jobs == []
    more = config_of(tmp_path, url, n_trials=8)
    Search(more, again, [LEARNING_RATE, "data=videos"]).run()
    assert [job["hydra.sweep.subdir"] for job in again.jobs] == [6, 7]
    assert len({trial.params["optimizer.lr"] for trial in study_of(more)}) == 8  # none was drawn again


def test_a_killed_search_goes_on_with_what_is_open_and_failures_are_tried_once_a_start(tmp_path: Path) -> None:
    ends = {0: "finished", 1: "diverged", 2: "failed", 3: "pruned"}

    def end(values: dict[str, Any]) -> tuple[str, float]:
        return ends.get(values["hydra.sweep.subdir"], "finished"), 12.0

    first = Launcher(tmp_path, end, killed_at=5)
    config = config_of(tmp_path, n_jobs=2)
    with pytest.raises(Killed):
        Search(config, first, [LEARNING_RATE]).run()
    states = [trial.state.name for trial in study_of(config)]
    assert states == ["COMPLETE", "FAIL", "RUNNING", "PRUNED", "RUNNING", "RUNNING"]
    assert status_of(tmp_path / "4") is not None  # finished, and the search was killed before it was told

    second = Launcher(tmp_path, end)
    Search(config, second, [LEARNING_RATE]).run()
    assert [job["hydra.sweep.subdir"] for job in second.jobs] == [2, 5]  # the failed one, the killed one
    assert second.jobs[0] == first.jobs[2]
    assert len(study_of(config)) == 6
    ends.clear()  # what made it fail is mended
    third = Launcher(tmp_path, end)
    Search(config, third, [LEARNING_RATE]).run()
    assert third.jobs == [first.jobs[2]]
    assert Counter(trial.state for trial in study_of(config)) == {
        TrialState.COMPLETE: 4, TrialState.FAIL: 1, TrialState.PRUNED: 1,
    }  # fmt: skip


def test_a_trial_that_was_killed_while_it_was_drawn_is_drawn_again(tmp_path: Path) -> None:
    config = config_of(tmp_path, n_trials=2)
    Search(config, Launcher(tmp_path, finishes), [LEARNING_RATE]).study.ask()  # without its values
    launcher = Launcher(tmp_path, finishes)
    Search(config, launcher, [LEARNING_RATE]).run()
    assert [job["hydra.sweep.subdir"] for job in launcher.jobs] == [0, 2]  # by its trial's number


def test_what_ends_a_job_ends_the_search(tmp_path: Path) -> None:
    class Stopped(Launcher):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            returned = super().launch(job_overrides, initial_job_idx)
            return [*returned, JobReturn(status=JobStatus.FAILED, _return_value=ConfigError("another job's folder"))]

    config = config_of(tmp_path)
    with pytest.raises(ConfigError, match="another job's folder"):
        Search(config, Stopped(tmp_path, finishes), [LEARNING_RATE]).run()
    assert [trial.state for trial in study_of(config)] == [TrialState.COMPLETE]  # what was done is told


def test_a_search_of_optuna_2_10_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One is complete, one diverged; one failed and was queued again; one failed; one was running."""
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.executescript(OF_2_10.read_text())
    database.close()
    typed = (
        LEARNING_RATE, "optimizer.weight_decay=interval(0.0,1.0)", "trainer.picture_share=range(0,1.25,0.25)",
        "seed=range(1,10)", "model.quantizer.codebook_size=tag(log,int(interval(16,256)))", "model=vqmodel,emavq",
    )  # fmt: skip
    for number, state in enumerate(("finished", "diverged", "failed", "failed", "running")):
        write_run(tmp_path / str(number), state)
    config = config_of(tmp_path, SQLITE, study_name="S")
    launcher = Launcher(tmp_path, finishes)
    Search(config, launcher, typed).run()
    assert "begun with an older version of Optuna" in capsys.readouterr().out
    assert [job["hydra.sweep.subdir"] for job in launcher.jobs] == [4, 2, 3, 7]  # running; queued; failed; a new one
    assert [job["optimizer.lr"] for job in launcher.jobs[:3]] == [
        0.00021860537655459686, 0.00011344234265835253, 0.008640187187029892,
    ]  # fmt: skip
    assert launcher.jobs[0]["model"] == "emavq"
    found = study_of(config)
    assert found[0].values == [20.0]
    assert Counter(trial.state for trial in found) == {TrialState.COMPLETE: 5, TrialState.FAIL: 3}
    assert "older version" not in capsys.readouterr().out


def test_two_objectives_have_the_best_compromises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality = {16: 20.0, 64: 25.0, 32: 19.0}  # 32 costs more than 16 and is worse

    class Priced(Launcher):
        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            returned = super().launch(job_overrides, initial_job_idx)
            for job in self.jobs:
                size = job["model.quantizer.codebook_size"]
                rows = [{PSNR: quality[size], BITS: size / 100}, {PSNR: 1.0, BITS: 0.01}, {PSNR: 99.0}]
                write_run(tmp_path / str(job["hydra.sweep.subdir"]), "finished", *rows)
            return returned

    typed = ["model.quantizer.codebook_size=16,64,32"]
    config = config_of(tmp_path, against=f"-{BITS}", sampler="grid")
    launcher = Priced(tmp_path, lambda values: ("finished", 1.0))
    Search(config, launcher, typed).run()
    assert len(launcher.jobs) == 3  # each combination once, though there might be six trials
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())["solutions"]
    assert sorted(solution["values"] for solution in found) == [[20.0, -0.16], [25.0, -0.64]]
    shown = capsys.readouterr().out
    assert "The best compromises, which no other job beats in both:\n  job " in shown
    assert "validation/psnr 25, validation/bits_per_pixel 0.64\n  job " in shown
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.against: this search was begun with a second objective"):
        Search(config_of(tmp_path), launcher, typed)


def test_scores_are_of_one_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "finished", {PSNR: 20.0, BITS: 0.5}, {PSNR: 22.0, BITS: 0.7}, {PSNR: 21.0, BITS: 0.1})
    assert scores_of(tmp_path / "0", [Criterion(PSNR), Criterion(f"-{BITS}")]) == [22.0, -0.7]
    assert scores_of(tmp_path / "0", [Criterion(PSNR)]) == [22.0]
    assert scores_of(tmp_path / "0", [Criterion(PSNR), Criterion("validation/lpips")]) is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a.b=interval(0.1,2)", FloatDistribution(0.1, 2.0)),
        ("a.b=interval(1,9)", FloatDistribution(1.0, 9.0)),
        ("a.b=int(interval(1,9))", IntDistribution(1, 9)),
        ("a.b=tag(log,int(interval(1,256)))", IntDistribution(1, 256, log=True)),
        ("a.b=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("a.b=range(1,10)", IntDistribution(1, 9)),
        ("a.b=range(2,11,4)", IntDistribution(2, 10, step=4)),
        ("a.b=range(0,0.5,0.1)", FloatDistribution(0.0, 0.4, step=0.1)),
        ("a.b=range(0.1,0.8,0.1)", FloatDistribution(0.1, 0.7, step=0.1)),
        ("a.b=range(5,0,-2)", IntDistribution(1, 5, step=2)),
        ("a.b=1,2.5,x,true,null", CategoricalDistribution([1, 2.5, "x", True, "null"])),
        ("a.b=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
        ("a=vqmodel,emavq", CategoricalDistribution(["vqmodel", "emavq"])),
    ],
)
def test_values_are_chosen_from_what_is_written(written: str, expected: object) -> None:
    (override,) = OverridesParser.create().parse_overrides([written])
    assert distribution(override) == expected


def test_a_grid_has_all_values_of_each_key() -> None:
    space = {"a": IntDistribution(2, 10, step=4), "b": FloatDistribution(0.1, 0.7, step=0.2)}
    assert grid_of({**space, "c": CategoricalDistribution(["x", "y"])}) == {
        "a": [2, 6, 10], "b": [0.1, 0.3, 0.5, 0.7], "c": ["x", "y"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sweeper", "typed", "message"),
    [
        ({}, ["seed=1"], "A search needs values to choose from"),
        ({"n_jobs": 0}, [LEARNING_RATE], r"hydra\.sweeper\.n_jobs must be a whole number"),
        ({"n_trials": "many"}, [LEARNING_RATE], r"hydra\.sweeper\.n_trials must be a whole number"),
        ({"sampler": "grid"}, [LEARNING_RATE], "grid takes choices and ranges, and optimizer.lr is an interval"),
        ({}, ["optimizer.lr=interval(1,0)"], r"optimizer\.lr must be an interval from a smaller to a larger number"),
        ({}, ["optimizer.lr=tag(log,interval(0,1))"], r"optimizer\.lr must be an interval"),
        (
            {"sampler": {"_target_": "os.system"}},
            [LEARNING_RATE],
            "os.system', which is no subclass of Optuna's BaseSampler",
        ),
        (
            {"sampler": {"_target_": "optuna.Sampler"}},
            [LEARNING_RATE],
            "sampler._target_ is 'optuna.Sampler', which does not",
        ),
        (
            {"sampler": {"_target_": TPE, "n_startup": 3}},
            [LEARNING_RATE],
            "sampler cannot be built: .* unexpected keyword argument 'n_sta",
        ),
        ({"against": "bits"}, [LEARNING_RATE], "the name of a scalar"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, sweeper: dict[str, Any], typed: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Search(config_of(tmp_path, **sweeper), Launcher(tmp_path, finishes), typed)


@pytest.fixture(params=[JOURNAL])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Trial]:
    """Asks for a trial, and returns what its job finds, in a process of its own for all that it knows."""
    pruner = {"n_startup_trials": 1, "n_warmup_steps": 10}
    config = config_of(tmp_path, request.param, storage={"pruner": pruner})
    search = Search(config, Launcher(tmp_path, finishes), [LEARNING_RATE])
    return lambda: trials.find_trial(config.hydra.sweeper, search.study.ask(search.space).number)


@pytest.mark.parametrize("job", [SQLITE, JOURNAL], indirect=True)
def test_a_hopeless_run_is_stopped(job: Callable[[], Trial]) -> None:
    good, bad = job(), job()
    logger = Pruning(good, [Criterion(PSNR)], steps=30)
    for step, psnr in ((0, 30.0), (10, 20.0), (20, 22.0)):
        logger.log(step, {PSNR: psnr}, {})
        logger.log(step, {PSNR: psnr}, {})  # as where a run is continued
        logger.log(step + 1, {"train/total": 1.0}, {})
    assert good.study.trials[0].intermediate_values == {10: 20.0, 20: 22.0}
    good.study.tell(good.number, 22.0)

    logger = Pruning(bad, [Criterion(PSNR)], steps=20)
    logger.log(0, {PSNR: 31.0}, {})  # of the untrained network, and no result
    with pytest.raises(PrunedError, match=r"Pruned after step 10: validation/psnr 19.5 "):
        logger.log(10, {PSNR: 19.5}, {})
    logger.log(20, {PSNR: 5.0}, {})  # after the last step there is nothing to be stopped


@pytest.mark.filterwarnings("ignore:PatientPruner is experimental")
def test_a_pruner_may_be_around_another(tmp_path: Path) -> None:
    within = {"_target_": "optuna.pruners.PercentilePruner", "percentile": 25.0}
    pruner = {"_target_": "optuna.pruners.PatientPruner", "patience": 3, "wrapped_pruner": within}
    config = config_of(tmp_path)
    config.hydra.sweeper.storage.pruner = pruner
    search = Search(config, Launcher(tmp_path, finishes), [LEARNING_RATE])
    found = trials.find_trial(config.hydra.sweeper, search.study.ask(search.space).number).pruner
    assert isinstance(found, optuna.pruners.PatientPruner)
    assert isinstance(found._wrapped_pruner, optuna.pruners.PercentilePruner)


def test_with_two_objectives_nothing_is_stopped(job: Callable[[], Trial]) -> None:
    job().study.tell(0, 30.0)
    trial = job()
    logger = Pruning(trial, [Criterion(PSNR), Criterion(f"-{BITS}")], steps=30)
    logger.log(10, {PSNR: 1.0, BITS: 0.1}, {})
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.against=validation/bits_per_pixel: no such scalar"):
        logger.log(10, {PSNR: 1.0}, {})


def test_an_objective_that_is_not_measured_is_named(job: Callable[[], Trial]) -> None:
    logger = Pruning(job(), [Criterion("-validation/lpips")], steps=9)
    with pytest.raises(ConfigError, match="objective=validation/lpips: no such scalar is measured; there are: validat"):
        logger.log(0, {PSNR: 3.0, "train/total": 1.0}, {})


def test_a_server_that_is_away_does_not_end_a_run(job: Callable[[], Trial], monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server is away"))

    trial = job()
    monkeypatch.setattr(trial.storage, "set_trial_intermediate_value", away)
    with pytest.warns(UserWarning, match="The search was not told of step 3: .*the server is away"):
        Pruning(trial, [Criterion(PSNR)], steps=9).log(3, {PSNR: 3.0}, {})


def test_a_job_without_an_open_trial_is_refused(job: Callable[[], Trial], tmp_path: Path) -> None:
    job().study.tell(0, 1.0)
    with pytest.raises(ConfigError, match="has no open trial for run 0"):
        trials.find_trial(config_of(tmp_path).hydra.sweeper, 0)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "hydra.sweeper.storage.url=nonsense cannot be opened: "),
        ("sqlite:////nowhere/study.db", "cannot be opened: "),
        ("journal:////nowhere/study.log", "cannot be opened: "),
        ("postgresql://me:hunter2@127.0.0.1:1/x", r"me:\*\*\*@127.0.0.1:1/x cannot be opened: "),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        trials.open_storage(url)
    assert "hunter2" not in str(caught.value)


def test_a_storage_of_a_newer_optuna_is_refused(tmp_path: Path) -> None:
    trials.open_storage(f"sqlite:///{tmp_path}/study.db")
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    database.close()
    with pytest.raises(StorageError, match=r"a newer version of Optuna made it \(v99.0.0.a\): pip install -U optuna"):
        trials.open_storage(f"sqlite:///{tmp_path}/study.db")
