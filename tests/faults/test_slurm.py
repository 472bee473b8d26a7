"""A real SLURM: a sweep, and runs that are preempted or out of time, queued again, and end as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import ROOT, SMALL, digest, finish, rows, start, train
from tests.support.slurm import Cluster, cluster, missing, wait_until
from vqgan.runs.status import status_of

pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

PATIENCE = 400  # seconds, for machines that have other things to do
STEPS = ("trainer.steps=200", "trainer.checkpoint_every=1000", "trainer.evaluate_every=1000", "seed=1")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run that nobody disturbed, outside SLURM, by its number of processes."""
    folders = {processes: tmp_path_factory.mktemp("undisturbed") / "run" for processes in (1, 2)}
    for processes, folder in folders.items():
        train(folder, *STEPS, processes=processes)
    return folders


def is_under_way(folder: Path) -> bool:
    """Whether a run has done some of its steps."""
    file = folder / "metrics.jsonl"
    return file.exists() and len(file.read_text().splitlines()) > 20


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    assert digest(folder) == digest(undisturbed)
    assert rows(folder) == rows(undisturbed)


def test_a_sweep_of_two_jobs(slurm: Cluster, tmp_path: Path) -> None:
    overrides = ("-m", "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "seed=1,2", "trainer.steps=3")
    train(tmp_path / "sweep", *overrides, **slurm.environment)
    for number in range(2):
        status = status_of(tmp_path / "sweep" / str(number))
        assert status is not None
        assert status.state == "finished"
    (script,) = (tmp_path / "sweep" / ".submitit").glob("*/*.sh")  # one array for both
    assert "#SBATCH --array=0-1%2" in script.read_text()


@pytest.mark.parametrize(
    ("how", "processes"), [("low", 1), ("graceful", 1), ("out of time", 1), ("graceful", 2), ("out of time", 2)]
)
def test_a_job_of_a_sweep_is_queued_again_and_ends_as_the_undisturbed_run(
    how: str, processes: int, slurm: Cluster, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    partition = "low" if how == "out of time" else how
    asked = (f"hydra.launcher.partition={partition}", f"hydra.launcher.tasks_per_node={processes}")
    sweep = start(tmp_path / "sweep", "-m", "hydra/launcher=slurm", *asked, *STEPS, **slurm.environment)
    folder = tmp_path / "sweep" / "0"
    wait_until(lambda: is_under_way(folder))
    job = slurm.job()
    if how == "out of time":
        slurm.say("scancel", "--signal=USR2", job)  # as SLURM sends it, signal_delay_s before the end
    else:
        slurm.preempt()
    slurm.start_again(job)
    stopped = status_of(folder)
    assert stopped is not None
    assert (stopped.state, stopped.exit_code) in [("stopped", 143), ("running", None)]
    code, _, err = finish(sweep, PATIENCE)
    assert code == 0, err
    assert_same_run(folder, undisturbed[processes])


def test_a_job_that_is_cancelled_stays_away(slurm: Cluster, tmp_path: Path) -> None:
    overrides = ("-m", "hydra/launcher=slurm", "hydra.launcher.partition=graceful", *STEPS)
    sweep = start(tmp_path / "sweep", *overrides, **slurm.environment)
    folder = tmp_path / "sweep" / "0"
    try:
        wait_until(lambda: is_under_way(folder))
        job = slurm.job()
        slurm.say("scancel", job)
        wait_until(lambda: slurm.say("squeue", "--noheader", f"--jobs={job}") == "")
        said = slurm.say("scontrol", "show", "job", job)
        assert "JobState=CANCELLED" in said
        assert "Restarts=0" in said
        status = status_of(folder)
        assert status is not None
        assert (status.state, status.exit_code) == ("stopped", 143)
    finally:
        sweep.terminate()  # without SLURM's accounting it cannot know, and waits
        finish(sweep)


def test_what_slurm_refuses_is_one_paragraph(slurm: Cluster, tmp_path: Path) -> None:
    overrides = ("-m", "hydra/launcher=slurm", "hydra.launcher.partition=nope", "seed=1")
    code, _, err = finish(start(tmp_path / "sweep", *overrides, **slurm.environment))
    assert code == 2
    (paragraph,) = [line for line in err.splitlines() if line.startswith("The jobs cannot be submitted")]
    assert "invalid partition specified: nope" in paragraph
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["low", "graceful", "out of time"])
def test_the_script_for_torchrun_is_queued_again_and_ends_as_the_undisturbed_run(
    how: str, slurm: Cluster, undisturbed: dict[int, Path], tmp_path: Path
) -> None:
    folder, partition = tmp_path / "run", "low" if how == "out of time" else how
    environment = os.environ | slurm.environment | {"PROCESSES": "2", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    options = [f"--partition={partition}", f"--output={tmp_path}/output", "--parsable"]
    command = ["sbatch", *options, str(ROOT / "docs" / "train.sbatch"), *SMALL, *STEPS, f"run_dir={folder}"]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    job = said.strip()
    wait_until(lambda: is_under_way(folder))
    if how == "out of time":
        slurm.say("scancel", "--batch", "--signal=USR1", job)  # as SLURM sends it, some time before the end
    else:
        slurm.preempt()
    slurm.start_again(job)
    wait_until(lambda: slurm.state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), PATIENCE)
    assert slurm.state(job) == "COMPLETED", (
        slurm.say("scontrol", "show", "job", job) + (tmp_path / "output").read_text()
    )
    assert_same_run(folder, undisturbed[2])
