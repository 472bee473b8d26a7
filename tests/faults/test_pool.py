"""Where reading processes come from, what they are given, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import LIMITS
from tests.faults.test_workers import ended, processes
from tests.support.traps import Batches, Complaining, Surrounded, Trapped
from vqgan.data.reading.nursery import nursery
from vqgan.data.reading.pool import LENT, WINDOW, Pool
from vqgan.data.reading.workers import Watch, supervised
from vqgan.errors import ConfigError

pytestmark = pytest.mark.slow


PATH = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def results(dataset: object, count: int, workers: int = 2) -> list[object]:
    with closing(supervised(dataset, range(count), Watch(workers, LIMITS), lambda *_: "")) as read:
        return list(read)


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_results_may_be_kept_and_changed_and_memory_is_used_again() -> None:
    pool = Pool(int, Batches().__getitem__, 2, range(60))
    with closing(pool):
        pool.start()
        kept = []
        for number in range(60):
            pixels = pool.take(100)[1]["pixels"]
            assert (pixels == number).all()
            if number < 20:
                kept.append(pixels.fill_(100 + number))
        assert all((pixels == 100 + number).all() for number, pixels in enumerate(kept))
        slots = [slot.memory.size for worker in pool.workers for slot in worker.slots]
        assert len(slots) == 2 * (WINDOW + LENT)
        assert sum(slots) < 1.1 * len(slots) * 2**20, "however many results there were"
        with pytest.raises(StopIteration):
            pool.take(100)
    assert all((pixels == 100 + number).all() for number, pixels in enumerate(kept)), "the workers are gone"


def test_workers_come_from_a_process_without_threads() -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        found = results(Batches(), 4)
    finally:
        stop.set()
    assert {one["parent"] for one in found} == {nursery().process.pid}  # type: ignore[index]
    assert {one["threads"] for one in found} == {1}  # type: ignore[index]
    assert os.listdir(f"/proc/{nursery().process.pid}/task") == [str(nursery().process.pid)]  # noqa: PTH208


def test_warnings_and_errors_of_a_worker_come_to_this_process() -> None:
    with (
        pytest.warns(UserWarning, match="about 0"), pytest.warns(UserWarning, match="about 1"),
        pytest.raises(EOFError, match="no such thing") as error,
    ):  # fmt: skip
        results(Complaining(), 4)
    assert "in __getitem__" in error.value.__notes__[0]


def test_workers_are_where_this_process_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nursery().process.poll() is None  # begun before
    (tmp_path / "only_there.py").write_text("NAME = 'found'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ONLY_NOW", "now")
    monkeypatch.chdir(tmp_path)
    assert results(Surrounded(), 1, workers=1) == [("now", str(tmp_path), "found")]


def test_a_data_set_that_cannot_be_sent_is_a_paragraph_and_is_read_without_workers() -> None:
    dataset = Trapped({99: lambda: None})
    said = r"^data.workers: the data set cannot be sent .* data.workers=0 reads"
    with pytest.raises(ConfigError, match=said) as error:
        results(dataset, 1)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    with closing(supervised(dataset, range(3), Watch(0, LIMITS), lambda *_: "")) as read:
        assert len(list(read)) == 3


SCRIPT = """
from contextlib import closing
from pathlib import Path
from tests.support.numbered import Numbered
from vqgan.data import BadFiles, Limits, Loader
print("main runs")
class Mine(Numbered): pass
def first(kind):
    limits = Limits(seconds=60, megabytes=2000, stall_seconds=60)
    bad_files = BadFiles(Path({folder!r}) / "bad.jsonl", 1.0, 0)
    bad_files.total = 11
    with closing(Loader(kind(), 4, 2, 7, bad_files, limits).batches(0)) as batches:
        return next(batches).shape
print(tuple(first(Numbered)))
try:
    first(Mine)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("typed", ["a file", "standard input"])
def test_no_main_module_is_run_again(typed: str, tmp_path: Path) -> None:
    script = SCRIPT.format(folder=str(tmp_path))
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py") if typed == "a file" else "-"],
        input=script, capture_output=True, text=True, check=False, env=PATH,
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:2] == ["main runs", "(4, 1, 1, 2, 3)"]
    assert lines[2].startswith("ConfigError data.workers: the data set cannot be sent to reading processes (")
    assert len(lines) == 3


def test_a_nursery_that_is_killed_costs_nothing() -> None:
    watch = Watch(2, LIMITS)
    with closing(supervised(Batches(), range(20), watch, lambda *_: pytest.fail("nothing is lost"))) as read:
        found = [next(read) for _ in range(3)]
        before = processes(watch)
        nursery().process.kill()
        wait_until(lambda: all(map(ended, before)))
        with pytest.warns(UserWarning, match="Reading goes on with new worker processes"):
            found += read
    assert [int(one["pixels"][0]) for one in found] == list(range(20))


def test_a_fork_of_this_process_has_a_nursery_of_its_own() -> None:
    ours = nursery().process
    child = os.fork()
    if child == 0:
        code = 1
        try:
            read = results(Batches(), 3, workers=1)
            code = 0 if nursery().process.pid != ours.pid and len(read) == 3 else 2
            nursery().close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ours.poll() is None


def test_a_signal_while_a_worker_is_started_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(BaseException): ...

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    nursery().close()  # the next one needs a while to answer
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Stop):
            results(Batches(), 3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(results(Batches(), 3)) == 3


@pytest.mark.parametrize("trap", ["hang_in_c", "hang", "vanish"])
def test_nothing_is_left_of_a_run_that_is_killed(trap: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        f"from tests.support.traps import Batches, Trapped, {trap}\n"
        "from vqgan.data import Limits\n"
        "from vqgan.data.reading.nursery import nursery\n"
        "from vqgan.data.reading.pool import Pool\n"
        f"pool = Pool(int, Trapped({{0: {trap}, 1: {trap}}}).__getitem__, 3, [0, 1, 2])\n"
        "pool.start()\n"
        "time.sleep(1)\n"
        "print(nursery().process.pid, *(worker.process for worker in pool.workers), flush=True)\n"
        "time.sleep(600)\n"
    )
    run = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=PATH,
    )  # fmt: skip
    assert run.stdout is not None
    left = [int(number) for number in run.stdout.readline().split()]
    assert len(left) == 4
    run.kill()
    wait_until(lambda: all(map(ended, left)), 20)
    assert run.communicate(timeout=20)[1] == "", "and nobody says a word"
