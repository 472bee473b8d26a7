"""Sweeps whose jobs run in processes of a launcher's: the same runs, the same ends."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import signal
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tests.support.runs import digest, finish, start, train
from tests.support.slurm import wait_until
from vqgan.config.build import conf_dir, unknown_choice
from vqgan.errors import CheckpointError, InvalidValueError, StoppedError
from vqgan.runs.status import status_of

pytestmark = pytest.mark.timeout(900)

LAUNCHERS = sorted(file.stem for file in (conf_dir() / "hydra" / "launcher").glob("*.yaml"))
PATIENCE = 400  # seconds, for machines that have other things to do
LONG = ("trainer.steps=200", "trainer.checkpoint_every=1000", "trainer.evaluate_every=1000")


def state(folder: Path) -> str | None:
    status = status_of(folder)
    return status and status.state


def steps(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def process_of(folder: Path) -> int:
    found = re.match(r"process (\d+)", (folder / ".owner").read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_opens_with_what_it_needs_and_its_command(name: str) -> None:
    lines = (conf_dir() / "hydra" / "launcher" / f"{name}.yaml").read_text().splitlines()
    assert 'pip install "vqgan[' in lines[0]
    assert lines[1].startswith(f"# python train.py -m hydra/launcher={name} ")
    pytest.importorskip({"cores": "joblib", "slurm": "submitit"}[name])
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [f"hydra/launcher={name}"], return_hydra_config=True)
    assert config.hydra.launcher._target_.startswith("hydra_plugins.")


@pytest.mark.parametrize(("choice", "extra"), [("submitit_slurm", "slurm"), ("joblib", "joblib"), ("ray", "ray")])
def test_a_launcher_that_is_not_installed_is_said_with_its_extra(choice: str, extra: str) -> None:
    error = unknown_choice("hydra/launcher", choice, ["basic"])
    assert error.exit_code == 2
    assert f'-e ".[{extra}]" in a checkout' in str(error)


@pytest.mark.parametrize("error", [InvalidValueError("a.b", 0, "positive"), CheckpointError("x"), StoppedError("y")])
def test_errors_come_back_from_other_processes_as_they_were(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.slow
def test_joblib_runs_jobs_side_by_side_and_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = start(tmp_path, "-m", "hydra/launcher=cores", "trainer.steps=2", "data.workers=1", "trainer.accumulate=0,1")
    code, _, err = finish(sweep, PATIENCE)
    assert (code, state(tmp_path / "1")) == (2, "finished")
    assert "trainer.accumulate must be" in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("told", ["all", "the launching process"])
def test_joblibs_jobs_save_when_the_sweep_is_told_to_stop(told: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    train(tmp_path / "undisturbed", *LONG, "seed=2")
    overrides = ("-m", "hydra/launcher=cores", "hydra.launcher.n_jobs=2", *LONG, "data.workers=1", "seed=1,2,3")
    sweep = start(tmp_path / "sweep", *overrides)
    first, second, third = (tmp_path / "sweep" / str(number) for number in range(3))
    wait_until(lambda: steps(first) > 10 and steps(second) > 10)
    if told == "all":
        os.killpg(sweep.pid, signal.SIGINT)  # as Ctrl-C does
    else:
        sweep.terminate()
    code, _, err = finish(sweep, PATIENCE)
    assert code == 143
    assert (state(first), state(second), state(third)) == ("stopped", "stopped", None), err
    assert f"run_dir={tmp_path / 'sweep'}" in err.strip().splitlines()[-1]
    train(tmp_path / "sweep", *overrides)
    assert [state(folder) for folder in (first, second, third)] == ["finished"] * 3
    assert digest(second) == digest(tmp_path / "undisturbed")


@pytest.mark.slow
def test_one_of_joblibs_processes_that_is_killed_ends_the_sweep_with_a_reason(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = start(tmp_path, "-m", "hydra/launcher=cores", *LONG, "seed=1,2")
    first, second = tmp_path / "0", tmp_path / "1"
    wait_until(lambda: steps(first) > 10 and steps(second) > 10)
    os.kill(process_of(first), signal.SIGKILL)
    code, _, err = finish(sweep, PATIENCE)
    assert code == 5
    assert "The process of a job was killed" in err
    assert "Traceback" not in err
    assert (state(first), state(second)) == ("interrupted", "interrupted")


@pytest.mark.slow
def test_a_job_of_submitits_is_started_again_and_ends_as_the_undisturbed_run(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    train(tmp_path / "undisturbed", *LONG, "seed=1")
    sweep = start(tmp_path / "sweep", "-m", "hydra/launcher=submitit_local", *LONG, "seed=1,2", "data.workers=1")
    first, second = tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"
    wait_until(lambda: steps(first) > 10)
    before = process_of(first)
    os.kill(before, signal.SIGUSR2)  # as submitit does when its time is up
    wait_until(lambda: (first / ".owner").exists() and process_of(first) != before)
    code, _, err = finish(sweep, PATIENCE)
    assert code == 0, err
    assert (state(first), state(second)) == ("finished", "finished")
    assert digest(first) == digest(tmp_path / "undisturbed")
    logs = [log.read_text() for log in (tmp_path / "sweep" / ".submitit").glob("*/*.err")]
    assert sum("Stopped by SIGUSR2" in log for log in logs) == 1


@pytest.mark.slow
def test_tasks_of_a_job_of_submitits_train_together(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    overrides = ("-m", "hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", *LONG, "seed=1")
    train(tmp_path / "sweep", *overrides)
    train(tmp_path / "torchrun", *LONG, "seed=1", processes=2)
    assert digest(tmp_path / "sweep" / "0") == digest(tmp_path / "torchrun")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='no ray: pip install "vqgan[ray]"')
def test_ray_runs_jobs(tmp_path: Path) -> None:
    cpus = "+hydra.launcher.ray.init.num_cpus=2"
    train(tmp_path, "-m", "hydra/launcher=ray", cpus, "trainer.steps=2", "seed=1,2")
    assert [state(tmp_path / name) for name in "01"] == ["finished", "finished"]
