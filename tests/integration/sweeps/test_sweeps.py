"""Sweeps as they are typed: what is skipped, what is refused, what is said in the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from tests.integration.conftest import SMALL, Ended
from vqgan.runs.status import Status, status_of
from vqgan.training import run as wiring
from vqgan.training import wiring as parts
from vqgan.training.trainer import Trainer

# Two learning rates that train, one that diverges at once, one that is refused.
SWEPT = ("-m", *SMALL, "run_dir=S", "trainer.steps=2", "optimizer.lr=0.001,1e30,-1,0.002", "trainer.checkpoint_every=1")
STATES = ["finished", "diverged", "failed", "finished"]
DIVERGES = ("trainer.max_skipped_in_a_row=0",)


def states(folder: Path) -> list[str]:
    found = [status_of(folder / str(number)) for number in range(len(list(folder.glob("[0-9]"))))]
    return [status.state for status in found if status is not None]


@pytest.mark.slow
def test_a_sweep_outlives_its_failures_and_again_tries_only_what_failed(
    typed: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = typed(*SWEPT, *DIVERGES)
    assert ended.code == 2  # of the job that another try may mend
    assert states(tmp_path / "S") == STATES
    *table, _, again = ended.output.splitlines()
    for row in (
        "finished 2",
        "diverged 1",
        "job 1 diverged: optimizer.lr=1e+30: Training diverged: ",
        "job 2 failed: optimizer.lr=-1: optimizer.lr=-1 is refused by torch.optim.Adam",
        "best job ",
    ):
        assert any(" ".join(line.split()).startswith(row) for line in table), row
    assert again.startswith("  python train.py -m ")
    assert again.endswith("run_dir=S")

    built = []
    monkeypatch.setattr(wiring, "run", lambda config, *_: built.append(config.optimizer.lr))
    ended = typed(*SWEPT, *DIVERGES)
    assert built == [-1]
    assert "Job 0: optimizer.lr=0.001 (finished before)" in ended.output
    assert "Job 1: optimizer.lr=1e+30 (diverged before)" in ended.output


def test_a_signal_as_a_job_finishes_ends_the_sweep(
    typed: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Trainer._save

    def interrupted(self: Trainer, score: float | None) -> None:
        if self.done == self.settings.steps:
            signal.raise_signal(signal.SIGTERM)
        original(self, score)

    monkeypatch.setattr(Trainer, "_save", interrupted)
    ended = typed("-m", *SMALL, "run_dir=S", "seed=1,2", "trainer.steps=1", "trainer.evaluate_every=9")
    assert ended.code == 143
    assert "Stopped by SIGTERM; job 0 is over. Go on with the sweep's own command" in ended.error
    assert states(tmp_path / "S") == ["finished"]


@pytest.mark.slow
def test_a_job_that_was_stopped_goes_on(typed: Callable[..., Ended], tmp_path: Path) -> None:
    small = ("-m", *SMALL, "run_dir=S", "seed=1,2", "trainer.checkpoint_every=1")
    assert typed(*small).code == 0
    folder = tmp_path / "S" / "1"
    (folder / "status.json").write_text(json.dumps({"state": "running", "message": None, "exit_code": None}))
    assert status_of(folder) == Status("interrupted")
    ended = typed(*small)
    assert ended.code == 0
    assert "Nothing left to train" in ended.output
    assert states(tmp_path / "S") == ["finished", "finished"]
    saved = yaml.safe_load((folder / "overrides.yaml").read_text())
    assert "seed=2" in saved
    assert not [override for override in saved if override.startswith(("run_dir", "sweep"))]  # it stands for itself


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "run_dir=S", "seed=1,3"), "The sweep in S is another one (seed: 1,2 there, 1,3 here)"),
        (
            ("-m", "run_dir=S", "seed=1,2", "trainer.steps=9"),
            "The sweep in S is another one (trainer.steps: 1",
        ),
        (("run_dir=S",), "run_dir=S is the folder of a sweep: add -m to go on with it"),
        (("-m", "run_dir=S/0", "seed=1,2"), "run_dir=S/0 is the folder of a single run"),
        (("-m", "run_dir=T", "objective=psnr", "seed=1,2"), "objective must be the name of a scalar"),
        (
            ("-m", "run_dir=T", "hydra/sweeper=optuna"),
            "hydra/sweeper=optuna: there is no such choice. Choices of hydra/",
        ),
        (
            ("-m", "run_dir=T", "hydra/sweeper=search", "hydra.sweeper.direction=minimize"),
            "hydra.sweeper.direction must ",
        ),
        (("-m", "run_dir=T", "sweep=nothing"), "sweep=nothing: there is no such choice. Choices of sweep: codebook, "),
        (
            ("sweep=codebook",),
            "sweep=codebook stands for several runs: add -m, as in python train.py -m ",
        ),
        (("hydra/launcher=cores",), "hydra/launcher=cores is for several runs: add -m."),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    arguments: tuple[str, ...], message: str, typed: Callable[..., Ended], tmp_path: Path
) -> None:
    write_sweep(tmp_path / "S")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    ended = typed(*SMALL, *arguments)
    assert (ended.code, ended.output) == (2, "")
    assert ended.paragraph.removeprefix(str(tmp_path)).replace(f"{tmp_path}/", "").startswith(message)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_a_sweep_that_is_running_is_left_alone(typed: Callable[..., Ended], tmp_path: Path) -> None:
    write_sweep(tmp_path / "S")
    with FileLock(tmp_path / "S" / ".lock"):
        ended = typed("-m", *SMALL, "run_dir=S", "seed=1,2")
    assert (ended.code, ended.output) == (6, "")
    assert ended.paragraph == "The sweep in S is running. Wait for it, or choose another run_dir."


def test_jobs_whose_numbers_changed_are_refused(typed: Callable[..., Ended], tmp_path: Path) -> None:
    write_sweep(tmp_path / "S")
    (tmp_path / "S" / "sweep.yaml").unlink()  # of an older version
    ended = typed("-m", *SMALL, "run_dir=S", "seed=2,1")
    assert (ended.code, ended.output) == (2, "")
    assert "S/0 was made for another job: 'seed=2' was not among what was typed for it." in ended.error


@pytest.mark.slow
def test_an_unexpected_error_is_a_traceback_and_the_sweep_goes_on(
    typed: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = parts.make_loss, []

    def broken(*arguments: object) -> torch.nn.Module:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")
        return make(*arguments)

    monkeypatch.setattr(parts, "make_loss", broken)
    ended = typed("-m", *SMALL, "run_dir=S", "seed=1,2")
    assert ended.code == 1
    assert "RuntimeError: a bug" in ended.error
    assert states(tmp_path / "S") == ["failed", "finished"]
    assert typed("-m", *SMALL, "run_dir=S", "seed=1,2").code == 0


@pytest.mark.slow
def test_a_search_whose_server_goes_away_ends_in_words(
    typed: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("the server is away"))

    small = (*SMALL, "hydra.sweeper.n_trials=1", "run_dir=S", "optimizer.lr=interval(0.001,0.002)")
    with monkeypatch.context() as patched:
        patched.setattr(RDBStorage, "set_trial_state_values", away)
        ended = typed("-m", "hydra/sweeper=search", *small)
    assert ended.code == 5
    assert ended.error.splitlines()[-1].startswith("hydra.sweeper.storage failed: ")
    assert "the server is away" in ended.error
    assert states(tmp_path / "S") == ["finished"]
    ended = typed("-m", "hydra/sweeper=search", *small)
    assert ended.code == 0, ended.error
    assert "Job 0" not in ended.output.partition("Sweep")[0]  # nobody asks for it again
    value = yaml.safe_load((tmp_path / "S" / "optimization_results.yaml").read_text())["best_value"]
    rows = [json.loads(row) for row in (tmp_path / "S" / "0" / "metrics.jsonl").read_text().splitlines()]
    assert value == rows[-1]["validation/psnr"]


def write_sweep(folder: Path) -> None:
    """A sweep of two finished jobs, without the seconds that they take."""
    for number, seed in enumerate((1, 2)):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "status.json").write_text('{"state": "finished", "message": null, "exit_code": 0}')
        (folder / str(number) / "overrides.yaml").write_text(yaml.safe_dump([*SMALL, f"seed={seed}"]))
        (folder / str(number) / "config.yaml").write_text("{}")
    fixed = dict(override.split("=", 1) for override in SMALL)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"swept": {"seed": "1,2"}, "fixed": fixed, "study": None}))
