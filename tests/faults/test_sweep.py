"""A sweep outlives its trials and its own death: again, its command does what is left, and nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.runs import digest, finish, rows, start, train
from vqgan.runs.status import Status, status_of

# The second of four crashes with an error that is nobody's to mend, the third diverges.
CRASHES = """
from vqgan.training import run as train
run = train.run
def crash(config, *arguments):
    if config.seed == 1:
        raise RuntimeError("a bug")
    return run(config, *arguments)
train.run = crash
from vqgan.commands import run as command
command("train")
"""
VALUES = ("-m", "trainer.steps=12", "trainer.evaluate_every=4", "trainer.checkpoint_every=2")
SWEPT = (*VALUES, "seed=0,1", "optimizer.lr=0.001,1e30", "trainer.max_skipped_in_a_row=0")


def state(folder: Path) -> str | None:
    status = status_of(folder)
    return None if status is None else status.state


def wait_for(process: subprocess.Popen[str], file: Path, text: str = "") -> None:
    """Until the file is there and holds the text."""
    end = time.monotonic() + 120
    while not (file.exists() and text in file.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_one_trial_crashes_and_two_diverge_and_the_sweep_is_killed(tmp_path: Path) -> None:
    script, folder = tmp_path / "crashes.py", tmp_path / "S"
    script.write_text(CRASHES)
    process = start(folder, *SWEPT, script=script)
    wait_for(process, folder / "0" / "metrics.jsonl", '"step": 6')
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert status_of(folder / "0") == Status("interrupted")
    assert not (folder / "1").exists()

    code, out, err = finish(start(folder, *SWEPT, script=script))
    assert code == 1, err
    assert [state(folder / str(number)) for number in range(4)] == ["finished", "diverged", "failed", "failed"]
    assert "RuntimeError: a bug" in err
    for row in ("finished 1", "diverged 1", "failed 2", "jobs 2, 3 failed: a bug"):
        assert any(" ".join(line.split()).startswith(row) for line in out.splitlines()), (row, out)
    written = {path: path.stat().st_mtime_ns for number in "01" for path in (folder / number).rglob("*")}

    code, out, err = finish(start(folder, *SWEPT))  # mended
    assert code == 4, err
    assert [state(folder / str(number)) for number in range(4)] == ["finished", "diverged", "finished", "diverged"]
    assert written == {path: path.stat().st_mtime_ns for number in "01" for path in (folder / number).rglob("*")}
    alone = tmp_path / "alone"
    train(alone, *VALUES[1:], "seed=0", "optimizer.lr=0.001", "trainer.max_skipped_in_a_row=0")
    assert digest(folder / "0") == digest(alone)  # killed in the middle, and the bits of an undisturbed run
    assert rows(folder / "0") == rows(alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_sweep_saved_and_the_same_command_goes_on(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "S"
    swept = (*VALUES, "seed=0,1", "trainer.checkpoint_every=1000")
    process = start(folder, *swept)
    wait_for(process, folder / "0" / "metrics.jsonl", '"step": 4')
    os.kill(process.pid, signal.Signals[name])
    code, _, error = finish(process)
    assert code == 143, error
    assert "Traceback" not in error
    assert f"its own command, with run_dir={folder}" in error
    assert state(folder / "0") == "stopped"
    assert not (folder / "1").exists()
    code, _, error = finish(start(folder, *swept))
    assert code == 0, error
    assert [state(folder / number) for number in "01"] == ["finished", "finished"]
