"""A run that is told to stop saves and ends with 143, whatever it is doing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Compose
from tests.support.runs import digest, finish, rows, start, train
from vqgan.errors import StoppedError
from vqgan.runs import checkpoint
from vqgan.training.run import run

VALUES = ("trainer.steps=12", "trainer.checkpoint_every=1000", "trainer.evaluate_every=4", "data.workers=1")
# Says where the run is and waits there for the signal; `place` is one of the names below.
WAIT_AT = """
import os, sys, time
place, stop_at = sys.argv.pop(1), int(sys.argv.pop(1))
def wait():
    print("HERE", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)
def briefly():
    print("HERE", flush=True)
    time.sleep(0.5)

if place == "imports":
    class Slow:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                wait()
    sys.meta_path.insert(0, Slow())
else:
    from vqgan.data import loader
    from vqgan.data import folder
    from vqgan.runs import checkpoint
    from vqgan.training import step, validation, wiring
    def before(owner, name, act, count=1):
        original, calls = getattr(owner, name), []
        def wrapped(*arguments, **values):
            calls.append(1)
            if len(calls) == count:
                act()
            return original(*arguments, **values)
        setattr(owner, name, wrapped)
    if place == "scan":
        before(folder, "find_files", wait)
    elif place == "building":
        before(wiring, "make_discriminator", wait)
    elif place == "step":
        before(step.Step, "autoencoder_gradients", briefly, stop_at)
    elif place == "update":
        before(step.Step, "update_autoencoder", briefly, stop_at)
    elif place == "validation":
        before(validation, "evaluate", wait, 2)
    elif place == "pictures":
        before(validation, "write_pictures", wait, 2)
    elif place == "save":
        before(checkpoint.Checkpoints, "_publish", briefly)
    elif place == "data":
        import waiting
        loader.EndlessClips = waiting.Stuck
from vqgan.commands import run
run("train")
"""
# A module beside that script, since reading processes import what their data set is of.
WAITING = """
import time
from vqgan.data import loader

class Stuck(loader.EndlessClips):
    def __getitem__(self, number):
        if number >= STOP_AT:
            if self.watch.slots[0, 2] != 777:
                self.watch.slots[0, 2] = 777
                print("HERE", flush=True)
            time.sleep(60)
        return super().__getitem__(number)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is run in place of `train.py`."""
    file = tmp_path_factory.mktemp("script") / "wait_at.py"
    file.write_text(WAIT_AT)
    return file


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train(folder, *VALUES, XDG_CACHE_HOME=str(folder.parent))
    return folder


PLACES = [
    *((place, "SIGTERM") for place in ("imports", "scan", "building", "data")),
    *((place, "SIGTERM") for place in ("step", "update", "validation", "pictures", "save")),
    ("step", "SIGINT"), ("data", "SIGUSR1"), ("step", "SIGUSR2"),
    ("step", "twice"), ("save", "twice"), ("validation", "twice"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name"), PLACES)
def test_a_signal_saves_and_the_run_goes_on_exactly(
    tmp_path: Path, script: Path, undisturbed: Path, place: str, name: str
) -> None:
    folder, cache = tmp_path / "run", str(undisturbed.parent)
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(f"import sys\nsys.argv[1:1] = [{place!r}, '6']\n" + script.read_text())
    (tmp_path / "waiting.py").write_text(WAITING.replace("STOP_AT", str(2 * 6)))
    process = start(folder, *VALUES, script=wrapper, XDG_CACHE_HOME=cache)
    assert process.stdout is not None
    printed = []
    while not printed or "HERE" not in printed[-1]:
        printed.append(process.stdout.readline())
        assert printed[-1], process.communicate()[1]
    sent = time.monotonic()
    for number in [signal.SIGTERM, signal.SIGINT] if name == "twice" else [signal.Signals[name]]:
        os.kill(process.pid, number)
        time.sleep(0.1)
    code, _, error = finish(process, timeout=60)
    assert code == 143, error
    assert time.monotonic() - sent < 10
    assert "Traceback" not in error
    assert "Stopped by SIG" in error
    if place not in ("imports", "scan", "building"):
        assert (folder / "checkpoints" / "latest" / "state.pt").exists()
        assert "resume=" in error
    train(folder, *VALUES, XDG_CACHE_HOME=cache)
    assert digest(folder) == digest(undisturbed)
    assert rows(folder) == rows(undisturbed)
    best = [(run / "checkpoints" / "best").resolve().name for run in (folder, undisturbed)]
    assert best[0] == best[1]


@pytest.mark.slow
def test_a_signal_while_the_networks_are_compiled_saves(tmp_path: Path) -> None:
    process = start(tmp_path / "run", "trainer.compile=true", "trainer.steps=9", "data.workers=1")
    while not (
        tmp_path / "run" / "metrics.jsonl"
    ).exists():  # the first row comes before the first step, which compiles
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to the compiler's processes too
    code, _, error = finish(process, timeout=250)
    assert code == 143, error
    assert "Traceback" not in error
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()


@pytest.mark.slow
def test_no_process_is_left_behind(tmp_path: Path) -> None:
    process = start(
        tmp_path / "run", "trainer.steps=9999", "data.workers=2", "logger=wandb", "logger.wandb.mode=offline"
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process, timeout=60)[0] == 143
    time.sleep(0.5)
    named = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in read_or_nothing(p)]
    assert named == []


def read_or_nothing(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_a_signal_while_the_newest_checkpoint_is_loaded_stops_the_run(
    composed: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(composed("trainer.steps=2"))
    original = checkpoint.read

    def interrupted(path: Path) -> tuple[int, dict[str, Any]]:
        found = original(path)
        signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr(checkpoint, "read", interrupted)
    with pytest.raises(StoppedError, match="Stopped by SIGTERM after step 2"):
        run(composed("trainer.steps=6"))
