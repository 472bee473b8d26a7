"""`status.json`: what has become of a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vqgan.errors import ConfigError, DataError, DivergedError, StoppedError, StorageError
from vqgan.runs import folder as run_folder
from vqgan.runs.folder import RunFolder
from vqgan.runs.saved import load_config, typed_for
from vqgan.runs.status import Status, status_of
from vqgan.runtime.signals import StopRequested, StopSignals, undisturbed

CONFIG = OmegaConf.create({"backbone": {}, "model": {}, "discriminator": {}, "resume": None})


def test_while_it_runs_and_when_it_is_done(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", CONFIG, []):
        assert status_of(tmp_path / "run") == Status("running")
    assert status_of(tmp_path / "run") == Status("finished", exit_code=0)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DivergedError("too far"), Status("diverged", "too far", 4)),
        (StoppedError("by SIGTERM"), Status("stopped", "by SIGTERM", 143)),
        (StorageError("full"), Status("failed", "full", 5)),
        (StopRequested("SIGINT"), Status("stopped", "Stopped by SIGINT; what was finished is saved.", 143)),
        (RuntimeError("a bug"), Status("failed", "a bug", 1)),
    ],
)
def test_after_an_error(error: BaseException, status: Status, tmp_path: Path) -> None:
    with pytest.raises(type(error)), RunFolder(tmp_path / "run", CONFIG, []):
        raise error
    assert status_of(tmp_path / "run") == status


def test_a_wrong_config_leaves_the_status_that_was(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", CONFIG, []):
        pass
    with pytest.raises(ConfigError), RunFolder(tmp_path / "run", CONFIG, []):
        raise ConfigError("no")
    assert status_of(tmp_path / "run") == Status("finished", exit_code=0)


@pytest.mark.parametrize("error", [ConfigError("no"), DataError("gone")])
def test_once_training_has_begun_nothing_is_undone(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)), RunFolder(tmp_path / "run", CONFIG, ["a=1"]) as folder:  # noqa: PT012
        folder.keep()
        raise error
    assert status_of(tmp_path / "run") == Status("failed", str(error), error.exit_code)  # type: ignore[attr-defined]
    assert load_config(tmp_path / "run") == CONFIG
    assert typed_for(tmp_path / "run") == ["a=1"]


def test_a_killed_run_is_interrupted(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_in, args=(tmp_path / "run",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert status_of(tmp_path / "run") == Status("interrupted")


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"state": 1}', "x" * 70_000])
def test_a_damaged_file_tells_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text)
    assert status_of(tmp_path) is None


def test_no_value_of_the_environment_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2-hunter2")
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "run", CONFIG, []):
        raise RuntimeError("hunter2-hunter2 is refused")
    assert status_of(tmp_path / "run") == Status("failed", "<environment: MY_TOKEN> is refused", 1)


def test_nor_one_that_was_typed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENTS", "/ward/smith-john")
    with pytest.raises(RuntimeError), RunFolder(tmp_path / "run", CONFIG, ["data.root=${oc.env:PATIENTS}"]):
        raise RuntimeError("/ward/smith-john is gone")
    assert status_of(tmp_path / "run") == Status("failed", "<environment: PATIENTS> is gone", 1)


def test_a_signal_on_the_way_out_waits_until_the_status_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run_folder.record_end

    def interrupted(*ending: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original(*ending)

    monkeypatch.setattr(run_folder, "record_end", interrupted)
    with pytest.raises(StopRequested) as stopped, StopSignals() as stop, stop.at_once():  # noqa: SIM117
        with RunFolder(tmp_path / "run", CONFIG, []):
            raise DivergedError("too far")
    assert isinstance(stopped.value.__context__, DivergedError)
    assert status_of(tmp_path / "run") == Status("diverged", "too far", 4)


def _die_in(folder: Path) -> None:
    with RunFolder(folder, CONFIG, []):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_signal_is_not_lost_where_cython_makes_a_traceback() -> None:
    """PyAV does so at the end of each file, in a frame without a module, and drops what is raised in it."""

    def go_on() -> None:
        try:
            exec("send(number)", {"send": signal.raise_signal, "number": signal.SIGTERM})
        except StopRequested:
            pytest.fail("it was raised where it is lost")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            pass

    with pytest.raises(StopRequested, match="SIGTERM"), StopSignals() as stop, stop.at_once():
        go_on()


def test_a_signal_that_came_too_late_for_a_part_is_known_around_it() -> None:
    with StopSignals() as around:
        with StopSignals() as part:
            signal.raise_signal(signal.SIGTERM)
        assert part.requested
        assert (around.requested, around.name) == (True, "SIGTERM")


def test_a_signal_at_a_bad_moment_comes_after_it() -> None:
    order = []

    def publish() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGTERM)
            order.append("whole")
        order.append("after")

    with pytest.raises(StopRequested, match="SIGTERM"), StopSignals() as stop, stop.at_once():
        publish()
    assert order == ["whole"]
