"""Whatever becomes of Weights & Biases, training does not notice."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Compose
from tests.faults.test_storage import in_a_small_disk, needs_mounts
from tests.support.runs import digest, rows
from vqgan.loggers import WeightsAndBiases
from vqgan.loggers.wandb import logger as wandb
from vqgan.training.run import run
from vqgan.training.trainer import Trainer

pytestmark = pytest.mark.slow

VALUES = ("trainer.steps=20", "trainer.log_every=1", "trainer.checkpoint_every=5", "loss.discriminator_start=4")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name))


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []

        def take() -> None:
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:
                pass

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in taken:
            connection.close()
        server.shutdown(socket.SHUT_RDWR)


def processes_of(leader: int) -> list[int]:
    """All processes below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found = [leader]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def at_step(patch: pytest.MonkeyPatch, number: int, act: Callable[[WeightsAndBiases], None]) -> None:
    """Do something to W&B before a step, once its service is there."""
    original = Trainer._step

    def step(self: Trainer, *arguments: Any) -> None:
        logger = self.journal.loggers.loggers["wandb"]
        if self.done == number:
            assert isinstance(logger, WeightsAndBiases)
            while not (logger.folder / "status.json").exists():
                time.sleep(0.05)
            act(logger)
            time.sleep(0.3)
        original(self, *arguments)

    patch.setattr(Trainer, "_step", step)


def kill_service(logger: WeightsAndBiases) -> None:
    assert logger.process is not None
    service = processes_of(logger.process.pid)[1:]
    assert service, "there is nothing to kill"
    for pid in service:
        os.kill(pid, signal.SIGKILL)


def kill_process(logger: WeightsAndBiases) -> None:
    assert logger.process is not None
    os.kill(logger.process.pid, signal.SIGKILL)


STOPPED: list[int] = []


def stop_all(logger: WeightsAndBiases) -> None:
    assert logger.process is not None
    STOPPED[:] = processes_of(logger.process.pid)
    assert len(STOPPED) > 1
    for pid in STOPPED:
        os.kill(pid, signal.SIGSTOP)


def test_a_service_that_this_process_has_already_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a sweep's agent, or in a notebook; the name leads to nobody here, so who used it would fail."""
    monkeypatch.setenv("WANDB_SERVICE", "3-1-tcp-localhost-9")
    values = {"project": "p", "entity": None, "group": None, "tags": [], "mode": "offline", "upload": "none"}
    logger = WeightsAndBiases(tmp_path, {}, False, **values)  # type: ignore[arg-type]
    logger.log(0, {"train/total": 1.0}, {})
    logger.close()
    assert not logger.warned
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == 1


@contextmanager
def one_warning_at_most() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield said
    said[:] = [w for w in said if "Weights & Biases" in str(w.message)]
    assert len(said) <= 1


def assert_undisturbed(composed: Compose, tmp_path: Path) -> None:
    """The run `run` is what it would have been without W&B."""
    run(composed(*VALUES, f"run_dir={tmp_path / 'none'}"))
    assert digest(tmp_path / "run") == digest(tmp_path / "none")
    assert rows(tmp_path / "run") == rows(tmp_path / "none")
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(21))


@pytest.mark.parametrize(
    "harm", [kill_service, *(pytest.param(way, marks=pytest.mark.slow) for way in (kill_process, stop_all))]
)
def test_a_service_that_dies_or_hangs_in_mid_run_changes_nothing(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[WeightsAndBiases], None]
) -> None:
    monkeypatch.setattr(wandb, "PATIENCE", 1.0)
    with monkeypatch.context() as patch, one_warning_at_most() as said:
        at_step(patch, 7, harm)
        run(composed(*VALUES, "logger=wandb", "logger.wandb.mode=offline"))
    ((message,),) = [[str(w.message) for w in said]]
    assert "Training goes on; metrics.jsonl has all rows, and `wandb sync " in message
    if harm is stop_all:
        time.sleep(0.2)
        assert [pid for pid in STOPPED if is_running(pid)] == [], "the hanging service is ended too"
    assert_undisturbed(composed, tmp_path)


@pytest.mark.slow
def test_a_server_that_never_answers_delays_nothing(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setattr(wandb, "PATIENCE", 1.0)
    began = time.monotonic()
    times: list[float] = []
    original = Trainer._step

    def step(self: Trainer, *arguments: Any) -> None:
        times.append(time.monotonic() - began)
        original(self, *arguments)

    with monkeypatch.context() as patch, one_warning_at_most() as said:
        patch.setattr(Trainer, "_step", step)
        run(composed(*VALUES, "logger=wandb"))
    assert times[0] < 10
    assert len(said) == 1
    assert "metrics.jsonl has all rows" in str(said[0].message)
    assert_undisturbed(composed, tmp_path)


@pytest.mark.slow
def test_an_unreachable_server_is_named_once_and_the_end_says_how_to_sync(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with one_warning_at_most() as said:
        run(composed(*VALUES, "logger=wandb"))
    assert "cannot be used online" in str(said[0].message)
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert f"offline; upload with: wandb sync {offline.parent}" in capsys.readouterr().out
    assert_undisturbed(composed, tmp_path)


@needs_mounts
@pytest.mark.slow
def test_a_full_disk_of_its_own_ends_no_run(tmp_path: Path) -> None:
    """`wandb/` is a link to a disk of 100 kB."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "wandb").symlink_to(tmp_path / "disk")
    code, error = in_a_small_disk(
        tmp_path / "disk", "100k", "trainer.steps=20", "logger=wandb", "logger.wandb.mode=offline",
        f"run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 0, error
    assert "Traceback" not in error
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(21))


def test_a_pipe_that_nobody_reads_never_blocks_and_drops_rows_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "MOST_WAITING", 50)
    monkeypatch.setattr(wandb, "PATIENCE", 0.5)
    values = {"project": "p", "entity": None, "group": None, "tags": [], "mode": "offline", "upload": "none"}
    logger = WeightsAndBiases(tmp_path, {}, False, **values)  # type: ignore[arg-type]
    logger.log(0, {"train/total": 1.0}, {})
    assert logger.process is not None
    while not (tmp_path / "wandb" / "status.json").exists():
        time.sleep(0.05)
    stop_all(logger)
    began = time.monotonic()
    with one_warning_at_most() as said:
        for step in range(3000):
            logger.log(step, {f"train/{number}": 1.0 for number in range(20)}, {})
        logger.close()
    assert "takes no more rows" in str(said[0].message)
    assert time.monotonic() - began < 15
