"""A search by Optuna that is killed goes on with the trials it has, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from tests.faults.test_sweep import state, wait_for
from tests.support.runs import finish, rows, start
from vqgan.sweeps.trials import open_storage

VALUES = (
    "-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=6", "hydra.sweeper.storage.pruner.n_startup_trials=1",
    "trainer.steps=12", "trainer.evaluate_every=4", "trainer.checkpoint_every=2", "trainer.max_skipped_in_a_row=0",
    "model.quantizer.commitment_weight=tag(log,interval(0.1,1))",
)  # fmt: skip
LEARNING_RATE = "optimizer.lr=tag(log,interval(1e-5,1e-2))"
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def trials(url: str, name: str) -> list[FrozenTrial]:
    storage = open_storage(url)
    assert isinstance(storage, RDBStorage)
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def check_run(folder: Path, trial: FrozenTrial) -> None:
    """What the study has of a trial is what its run has."""
    run = folder / str(trial.number)
    assert state(run) == {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}[trial.state]
    scores = {row["step"]: row["validation/psnr"] for row in rows(run) if "validation/psnr" in row and row["step"]}
    assert trial.intermediate_values == pytest.approx(scores)
    if trial.state is TrialState.COMPLETE:
        assert trial.value == pytest.approx(max(scores.values()))
    typed = yaml.safe_load((run / "overrides.yaml").read_text())
    assert f"optimizer.lr={trial.params['optimizer.lr']}" in typed


def check_killed_and_started_again(folder: Path, url: str, *overrides: str) -> list[FrozenTrial]:
    """Kill a search in its second trial, start it again, and compare what it has with what is in the folder."""
    process = start(folder, *VALUES, LEARNING_RATE, *overrides)
    wait_for(process, folder / "1" / "metrics.jsonl", '"step": 2')
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = trials(url, str(folder))
    assert [trial.state for trial in before] == [TrialState.COMPLETE, TrialState.RUNNING]
    code, out, err = finish(start(folder, *VALUES, LEARNING_RATE, *overrides), timeout=280)
    assert code == 0, err
    assert "Job 0: " not in out  # nobody asks for it again
    after = trials(url, str(folder))
    assert [trial.number for trial in after] == list(range(6))
    assert [trial.params for trial in after[:2]] == [trial.params for trial in before]
    assert len({trial.params["optimizer.lr"] for trial in after}) == 6  # none was drawn again
    for trial in after:
        check_run(folder, trial)
    best = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert best["best_value"] == max(trial.value for trial in after if trial.state is TrialState.COMPLETE)

    code, out, err = finish(start(folder, *VALUES, LEARNING_RATE, *overrides))  # all is done
    assert (code, len(trials(url, str(folder)))) == (0, 6), err
    assert "Job" not in out.partition("Sweep")[0]
    return after


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "S"
    url = f"sqlite:///{folder}/study.db"
    found = check_killed_and_started_again(folder, url)
    assert TrialState.PRUNED in [trial.state for trial in found]
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]/metrics.jsonl")}

    moved = folder.rename(tmp_path / "moved")  # more trials, elsewhere
    code, _, err = finish(start(moved, *VALUES, LEARNING_RATE, "hydra.sweeper.n_trials=7"))
    assert code == 0, err
    assert len(trials(f"sqlite:///{moved}/study.db", str(folder))) == 7
    now = {path: path.stat().st_mtime_ns for path in moved.glob("[0-5]/metrics.jsonl")}
    assert now == {moved / path.relative_to(folder): time for path, time in finished.items()}


@pytest.mark.slow
def test_trials_in_processes_of_their_own_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra joblib is not installed")
    folder = tmp_path / "S"
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2")
    code, _, err = finish(start(folder, *VALUES, LEARNING_RATE, *parallel), timeout=280)
    assert code == 0, err
    found = trials(f"sqlite:///{folder}/study.db", str(folder))
    assert [trial.number for trial in found] == list(range(6))
    for trial in found:
        check_run(folder, trial)


@pytest.mark.slow
def test_trials_that_diverge_fail_and_are_not_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "S"
    overrides = (*VALUES, "optimizer.lr=1e30,0.001", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4")
    code, out, err = finish(start(folder, *overrides))
    assert code == 4, err
    found = trials(f"sqlite:///{folder}/study.db", str(folder))
    assert {trial.state for trial in found} >= {TrialState.FAIL}
    for trial in found:
        assert (state(folder / str(trial.number)) == "diverged") == (trial.state is TrialState.FAIL)
        assert (trial.state is TrialState.FAIL) == (trial.params["optimizer.lr"] == 1e30)
    code, out, err = finish(start(folder, *overrides))
    assert (code, len(trials(f"sqlite:///{folder}/study.db", str(folder)))) == (4, 4), err
    assert "Job" not in out.partition("Sweep")[0]


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a database on a server of its own, which listens on a socket alone."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    bin_folder = PROGRAMS[-1]
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path may have 107 bytes
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name  # PostgreSQL refuses root
    if os.getuid() == 0:
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [bin_folder / program, *arguments], user=user if os.getuid() == 0 else None, cwd=folder, check=True,
            stdout=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip

    run("initdb", "-D", f"{folder}/data", "-U", "vqgan", "--auth=trust", "--no-sync")
    server = ("pg_ctl", "-w", "-D", f"{folder}/data")
    run(*server, "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses=", "start")
    try:
        yield f"postgresql://vqgan@/postgres?host={folder}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run(*server, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.postgres
def test_a_search_on_a_server_that_was_killed_goes_on(postgres: str, tmp_path: Path) -> None:
    check_killed_and_started_again(tmp_path / "S", postgres, f"hydra.sweeper.storage.url='{postgres}'")
    assert not (tmp_path / "S" / "study.db").exists()
