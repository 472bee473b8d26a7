"""Several processes: one that dies, a signal, a step that is not finite in one of them, and another number of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.runs import code_use, digest, finish, rows, saved_steps, start, train, unfinished
from vqgan.runs.checkpoint import read
from vqgan.runs.status import status_of

pytestmark = pytest.mark.slow

LONG = ("trainer.steps=60", "trainer.checkpoint_every=5", "trainer.evaluate_every=20", "data.batch_size=4")
DEADLINE = 60  # seconds within which all processes have ended once one has


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder, *LONG, processes=2)
    return folder


def started(folder: Path, step: int, *overrides: str, **values: object) -> subprocess.Popen[str]:
    """Two processes that have logged a step."""
    process = start(folder, *LONG, *overrides, processes=2)
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        file = folder / "metrics.jsonl"
        if file.exists() and len(file.read_text().splitlines()) > step:
            return process
        time.sleep(0.02)
    pytest.fail(f"step {step} was not reached: {finish(process)}")


def ranks(torchrun: int) -> dict[int, int]:
    """The process ids below `torchrun`, by rank."""
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    found = {}
    for pid in map(int, children):
        environment = dict(
            item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in item
        )
        if "RANK" in environment:
            found[int(environment["RANK"])] = pid
    return found


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    assert digest(folder) == digest(undisturbed)
    assert rows(folder) == rows(undisturbed)
    assert code_use(folder) == code_use(undisturbed)
    assert unfinished(folder) == []


@pytest.mark.parametrize(("killed", "step"), [(1, 7), (0, 20)])
def test_a_killed_process_ends_all_and_the_run_goes_on_exactly(
    killed: int, step: int, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = started(folder, step)
    members = ranks(process.pid)
    os.kill(members[killed], signal.SIGKILL)
    code, _, err = finish(process, DEADLINE)
    assert code != 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in members.values())
    if killed == 1:
        assert "Another process of this run has ended" in err
        status = status_of(folder)
        assert status is not None
        assert (status.state, status.exit_code) == ("failed", 1)
    assert "Traceback (most recent call last)" not in err.split("torch/distributed")[0]
    newest = saved_steps(folder)[-1]
    assert newest >= step - 5
    assert read(folder / "checkpoints" / f"step-{newest:08}")[0] == newest
    train(folder, *LONG, processes=2)
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize("told", ["torchrun", "first", "second"])
def test_a_signal_stops_all_at_the_same_step_saved(told: str, undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = started(folder, 7)
    members = ranks(process.pid)
    os.kill({"torchrun": process.pid, "first": members[0], "second": members[1]}[told], signal.SIGTERM)
    code, _, err = finish(process, DEADLINE)
    assert code != 0
    found = re.search(r"Stopped by .* after step (\d+); everything is saved", err)
    assert found is not None, err
    assert saved_steps(folder)[-1] == int(found[1]) == rows(folder)[-1]["step"]
    status = status_of(folder)
    assert status is not None
    assert (status.state, status.exit_code) == ("stopped", 143)
    train(folder, *LONG, processes=2)
    assert_same_run(folder, undisturbed)


def test_another_number_of_processes_is_refused_unless_asked_for(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, *LONG, "trainer.steps=20", processes=2)
    code, _, err = finish(start(folder, *LONG))
    assert code == 2
    assert "was trained by 2 of torchrun's processes, and this is 1" in err
    assert saved_steps(folder)[-1] == 20
    said = train(folder, *LONG, "allow_other_processes=true")
    assert "no longer exactly as it would have without a stop: processes was 2 and is 1" in said
    # The same clips in the same steps: the numbers differ in their last digits only, for a while.
    for mine, theirs in zip(rows(folder)[21:24], rows(undisturbed)[21:24]):
        assert mine["train/pixel"] == pytest.approx(theirs["train/pixel"], rel=1e-3)
    code, _, err = finish(start(folder, *LONG, "trainer.steps=70", processes=2))
    assert code != 0
    assert "was trained by 1 of torchrun's processes, and this is 2" in err


NAN_IN_ONE = """
import os
import torch
from vqgan.training.step import Step

original = Step.autoencoder_gradients

def spoiled(self, step, frames, parts):
    return original(self, step, frames * float("nan") if step == 5 and os.environ["RANK"] == "1" else frames, parts)

Step.autoencoder_gradients = spoiled
from vqgan.commands import run
run("train")
"""


def test_a_step_that_is_not_finite_in_one_is_skipped_by_all(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(NAN_IN_ONE)
    train(folder, *LONG, "trainer.steps=10", processes=2, script=script)
    assert rows(folder)[-1]["train/skipped_steps"] == 1
    (line,) = (folder / "skipped_batches.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert written["step"] == 5
    assert [clip["number"] for clip in written["clips"]] == [20, 21, 22, 23]


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    code, _, err = finish(start(tmp_path / "run", "trainer.steps=-1", processes=2))
    assert code != 0
    assert err.count("trainer.steps must be positive") == 1


def test_a_sweep_cannot_be_started_by_torchrun(tmp_path: Path) -> None:
    code, _, err = finish(start(tmp_path / "run", "-m", "seed=1,2", processes=2))
    assert code != 0
    assert "--multirun under torchrun" in err
