"""Reading processes that crash, hang or are killed cost one file at most, and not a bit of the result."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing import resource_sharer
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from tests.conftest import LIMITS, Compose
from tests.support.runs import digest
from tests.unit.video.test_video_file import Recording
from vqgan.data import BadFiles, ClipDataset, Limits, Loader, Videos
from vqgan.data.loader import read_evenly
from vqgan.data.reading import workers
from vqgan.data.reading.workers import Watch, WorkerError, supervised
from vqgan.data.videos import VideoFolder
from vqgan.errors import DataError
from vqgan.training.run import run
from vqgan.video.file import scan_video

pytestmark = pytest.mark.slow

CLIPS = 24
IMPATIENT = Limits(seconds=1, megabytes=300, stall_seconds=1.5)


def crash() -> None:
    ctypes.string_at(0)  # a segmentation fault, as of a broken decoder


def vanish() -> None:
    os._exit(0)


def hang() -> None:
    while True:
        time.sleep(1)


def hang_in_c() -> None:
    threading.Lock().acquire()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # no signal handler runs in there


def compute_forever() -> None:
    while True:
        sum(range(1000))


def eat_memory() -> None:
    np.ones(2**28)  # 2 GB


class Trapped(ClipDataset):
    """Clips that are their number, some of which do harm when they are read."""

    def __init__(self, traps: dict[int, Any], once: Path | None = None) -> None:
        self.traps, self.once = traps, once

    def __len__(self) -> int:
        return CLIPS

    def path(self, index: int) -> Path:
        return Path(f"clip{index}")

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        if index in self.traps and not (self.once is not None and (self.once / str(index)).exists()):
            if self.once is not None:
                (self.once / str(index)).touch()
            self.traps[index]()
        chance = 0 if rng is None else int(rng.integers(256))
        return torch.tensor([index, chance], dtype=torch.uint8).reshape(1, 1, 2, 1).expand(1, 1, 2, 3)


def ledger(tmp_path: Path) -> BadFiles:
    bad_files = BadFiles(tmp_path / f"bad_files{time.monotonic_ns()}.jsonl", 1.0, 0)
    bad_files.total = CLIPS
    return bad_files


def drawn(loader: Loader, count: int = 12, first: int = 0) -> Tensor:
    with closing(loader.batches(first)) as batches:
        return torch.cat(list(itertools.islice(batches, count)))


FATAL = {"a crash": crash, "an exit": vanish, "a hang": hang, "a hang in C": hang_in_c}


@pytest.mark.parametrize("trap", FATAL.values(), ids=FATAL.keys())
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_file_that_ends_its_worker_is_left_out_and_reported(tmp_path: Path, trap: Any, workers: int) -> None:
    bad_files = ledger(tmp_path)
    with pytest.warns(UserWarning, match="Reading goes on with new worker processes") as said:
        clips = drawn(Loader(Trapped({5: trap}), 4, workers, 7, bad_files, IMPATIENT))
    assert len(clips) == 48
    assert 5 not in clips[:, 0, 0, 0, 0]
    whole = drawn(Loader(Trapped({}), 4, 0, 7, ledger(tmp_path), LIMITS))
    others = whole[:, 0, 0, 0, 0] != 5
    assert torch.equal(clips[others], whole[others]), "nothing else is skipped or repeated"
    assert list(bad_files.reasons) == ["clip5"]
    assert len(said) == 2, "it gets a second chance"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("trap", FATAL.values(), ids=FATAL.keys())
def test_what_happens_once_costs_nothing(tmp_path: Path, trap: Any) -> None:
    once = tmp_path / "once"
    once.mkdir()
    bad_files = ledger(tmp_path)
    with pytest.warns(UserWarning, match="Reading goes on"):
        clips = drawn(Loader(Trapped({5: trap, 11: trap}, once), 4, 2, 7, bad_files, IMPATIENT))
    assert torch.equal(clips, drawn(Loader(Trapped({}), 4, 0, 7, ledger(tmp_path), LIMITS)))
    assert bad_files.reasons == {}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_from_outside_costs_nothing(tmp_path: Path, sent: signal.Signals) -> None:
    bad_files = ledger(tmp_path)
    with pytest.warns(UserWarning, match="Reading goes on"):
        clips = disturbed(Loader(Trapped({}), 4, 2, 7, bad_files, IMPATIENT), sent)
    assert torch.equal(clips, drawn(Loader(Trapped({}), 4, 0, 7, bad_files, LIMITS), 20))
    assert bad_files.reasons == {}


def disturbed(loader: Loader, sent: signal.Signals) -> Tensor:
    found = []
    with closing(loader.batches(0)) as batches:
        for number, batch in enumerate(itertools.islice(batches, 20)):
            found.append(batch)
            if number == 3:
                time.sleep(0.5)  # the next results are on their way, whose tensors only their worker can hand over
                os.kill(loader.watch.processes[0].pid, sent)
                time.sleep(0.1)
    return torch.cat(found)


@pytest.mark.parametrize("first", ["another loader", "this one"])
def test_torchs_own_handler_of_a_workers_death_stays_out_of_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """A process that reads in a loader of its own too has torch's handler, which raises wherever the process is."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # as in a new process
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        if first == "another loader":
            assert [len(part) for part in DataLoader(Large(), sampler=range(2), batch_size=None, num_workers=1)]
        loader = Loader(Trapped({}), 4, 2, 7, ledger(tmp_path), IMPATIENT)
        with pytest.warns(UserWarning, match="Reading goes on"):
            assert len(disturbed(loader, signal.SIGKILL)) == 80
        with pytest.raises(RuntimeError, match="killed by signal"):  # while its own loaders are served as ever
            read_and_kill(DataLoader(Large(), sampler=range(9), batch_size=None, num_workers=1))
    finally:
        signal.signal(signal.SIGCHLD, before)


def read_and_kill(loader: DataLoader[Any]) -> None:
    iterator = iter(loader)
    next(iterator)
    os.kill(iterator._workers[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
    time.sleep(5)


class Large(Dataset[Any]):
    """Results that do not fit into a pipe, so that they are sent in parts."""

    def __getitem__(self, number: int) -> bytes:
        return bytes([number]) * 2**20


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_result_that_was_sent_in_part_is_read_again(workers: int, sent: signal.Signals) -> None:
    watch = Watch(workers, IMPATIENT)
    results = supervised(Large(), lambda position: range(position, 9), watch, lambda *_: pytest.fail("nothing is lost"))
    found = []

    def read_all() -> None:
        found.append(next(results))
        time.sleep(0.5)  # now a worker is in the middle of sending
        for process in watch.processes:
            os.kill(process.pid, sent)
        found.extend(results)

    with closing(results), pytest.warns(UserWarning, match="Reading goes on"):
        read_all()
    assert [(content[0], len(set(content)), len(content)) for content in found] == [(n, 1, 2**20) for n in range(9)]


@pytest.mark.parametrize(
    ("trap", "reason"),
    [(compute_forever, "too slow: more than 1 s"), (eat_memory, "too large: needs more than 300 MB")],
)
def test_a_file_that_takes_too_much_is_left_out_without_ending_its_worker(
    tmp_path: Path, trap: Any, reason: str
) -> None:
    bad_files = ledger(tmp_path)
    clips = drawn(Loader(Trapped({5: trap}), 4, 1, 7, bad_files, replace(IMPATIENT, stall_seconds=60)))
    assert 5 not in clips[:, 0, 0, 0, 0]
    assert bad_files.reasons["clip5"].startswith(reason)


def test_a_file_that_computes_for_ever_is_ended_in_the_training_process_too(tmp_path: Path) -> None:
    bad_files = ledger(tmp_path)
    drawn(Loader(Trapped({5: compute_forever}), 4, 0, 7, bad_files, IMPATIENT))
    assert bad_files.reasons["clip5"].startswith("too slow")


def test_where_everything_crashes_the_run_ends_after_three_restarts(tmp_path: Path) -> None:
    def vanish_between() -> None:
        os._exit(3)

    class Cursed(Trapped):
        def path(self, index: int) -> Path:
            if multiprocessing.parent_process() is not None:
                vanish_between()
            return super().path(index)

    with (
        pytest.warns(UserWarning, match="Reading goes on") as said,
        pytest.raises(DataError, match=r"Reading failed 4 times in a row: a worker process ended with exit code 3"),
    ):
        drawn(Loader(Cursed({}), 4, 2, 7, ledger(tmp_path), IMPATIENT))
    assert len(said) == 3


class Stored(Trapped):
    """Clips in a storage that gives nothing while a file is there."""

    def __init__(self, outage: Path) -> None:
        super().__init__({})
        self.outage = outage

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor:
        wait_while(self.outage)
        return super().read(index, rng)


def wait_while(outage: Path) -> None:
    while outage.exists():
        time.sleep(0.02)


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage that is out while this file is there, for whoever asks."""
    file = tmp_path / "outage"
    file.touch()
    monkeypatch.setattr(workers, "ANSWER", 0.3)
    monkeypatch.setattr(workers, "_look_at", lambda _: wait_while(file))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_an_outage_of_the_storage_costs_no_file(tmp_path: Path, outage: Path, count: int) -> None:
    bad_files, said = ledger(tmp_path), list[str]()

    def back_after_two(message: Warning | str, *_: Any, **__: Any) -> None:
        said.append(str(message))
        if len(said) == 2:
            outage.unlink()

    loader = Loader(Stored(outage), 4, count, 7, bad_files, replace(IMPATIENT, stall_seconds=0.6))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = back_after_two
        clips = drawn(loader)
    assert torch.equal(clips, drawn(Loader(Trapped({}), 4, 0, 7, ledger(tmp_path), LIMITS)))
    assert (bad_files.reasons, loader.sequence.lost) == ({}, {})
    assert all("gives no bytes of it to another process either" in message for message in said)


@pytest.mark.slow
def test_a_storage_that_stays_away_ends_the_run_and_costs_no_file(tmp_path: Path, outage: Path) -> None:
    bad_files = ledger(tmp_path)
    loader = Loader(Stored(outage), 4, 2, 7, bad_files, replace(IMPATIENT, stall_seconds=0.6))
    with (
        pytest.warns(UserWarning, match="Reading goes on"),
        pytest.raises(
            DataError, match=r"^Reading failed 4 times .* the storage of clip\d+ .* the same command goes on"
        ),
    ):
        drawn(loader)
    assert (bad_files.reasons, loader.sequence.lost) == ({}, {})


def test_a_file_answers_where_its_bytes_or_an_error_come(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    names = ("file", "file/000001", "empty", "fifo", "nothing", "nothing/000001")
    assert workers._can_be_read([tmp_path / name for name in names])


def test_a_resumed_run_leaves_out_the_same_file_from_the_same_clip_on(tmp_path: Path) -> None:
    loader = Loader(Trapped({5: crash}), 4, 1, 7, ledger(tmp_path), IMPATIENT)
    with pytest.warns(UserWarning, match="Reading goes on") as said:
        whole = drawn(loader, 12)
    assert "clip5 is left out from now on" in str(said[-1].message)
    again = Loader(Trapped({5: crash}), 4, 1, 7, ledger(tmp_path), IMPATIENT)
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert torch.equal(drawn(again, 4, first=8), whole[32:])
    assert torch.equal(drawn(again, 12), whole), "also from before it was found out"


@pytest.mark.slow
@pytest.mark.parametrize("trap", [crash, hang_in_c])
def test_a_validation_clip_that_ends_its_worker_is_left_out(tmp_path: Path, trap: Any) -> None:
    bad_files = ledger(tmp_path)
    with pytest.warns(UserWarning, match="Reading goes on"):
        clips = read_evenly(Trapped({3: trap}), CLIPS, bad_files, 2, IMPATIENT).clips
    assert clips[:, 0, 0, 0, 0].tolist() == [n for n in range(CLIPS) if n != 3]
    assert list(bad_files.reasons) == ["clip3"]


@pytest.mark.slow
@pytest.mark.parametrize("trap", [crash, hang_in_c])
def test_a_file_that_ends_its_scanner_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: Any) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(5):
        Recording().write_numbers(tmp_path, 8).rename(folder / f"{number}.mp4")

    def scan(path: Path) -> Any:
        if path.name == "2.mp4":
            trap()
        return scan_video(path)

    monkeypatch.setattr(Videos, "kind", replace(Videos.kind, scan=scan))
    data = Videos(
        root=str(folder), val_root=None, val_fraction=0.1, validation_clips=4, resolution=32, clip_frames=4, stride=1,
        fps=None, crop="center", flip=False, batch_size=2, workers=2, max_bad_fraction=0.0, max_bad_files=1,
        limits=IMPATIENT,
    )  # fmt: skip
    bad_files = BadFiles(tmp_path / "bad_files.jsonl", 0.0, 1)
    with pytest.warns(UserWarning, match="Reading goes on"):
        training, validation = data.datasets(bad_files)
    names = {side.path(index).name for side in (training, validation) for index in range(len(side))}
    assert names == {"0.mp4", "1.mp4", "3.mp4", "4.mp4"}
    assert list(bad_files.reasons) == [str(folder / "2.mp4")]


@pytest.mark.slow
def test_a_run_whose_workers_die_ends_with_the_same_bits(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ["trainer.steps=8", "data.workers=2", "loss.discriminator_start=2"]
    run(composed(*values, f"run_dir={tmp_path / 'whole'}"))
    original, parent = VideoFolder.read, os.getpid()
    marks = tmp_path / "marks"
    marks.mkdir()

    def read(self: VideoFolder, index: int, rng: np.random.Generator | None) -> Tensor:
        if rng is not None and os.getpid() != parent and len(list(marks.iterdir())) < 3 and index % 5 == 0:
            (marks / str(time.monotonic_ns())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index, rng)

    monkeypatch.setattr(VideoFolder, "read", read)
    with pytest.warns(UserWarning, match=r"ended with signal 9"):
        trainer = run(composed(*values, f"run_dir={tmp_path / 'killed'}"))
    assert len(list(marks.iterdir())) == 3
    if not trainer.loader.sequence.lost:  # else a file was unlucky twice, and is left out
        assert digest(tmp_path / "killed") == digest(tmp_path / "whole")


def stay_in_the_middle(sent: list[int]) -> None:
    time.sleep(600)


def stop_before_the_tensors_are_fetched(sent: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize(
    ("before", "after"),
    [(stay_in_the_middle, list.clear), (list.clear, stop_before_the_tensors_are_fetched)],
    ids=["a result that was sent in part", "a result whose tensors are still to be fetched"],
)
def test_with_a_gpu_the_end_waits_for_no_result_and_is_silent(
    before: Callable[[list[int]], None], after: Callable[[list[int]], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Where torch had a thread of its own for pinned memory it would be in the middle of the second result."""
    parent, sent = os.getpid(), list[int]()
    send = multiprocessing.connection.Connection._send  # type: ignore[attr-defined]

    def sending(self: Any, content: Any, *others: Any) -> None:
        is_second = os.getpid() != parent and len(content) > 2**14 and sum(sent) > 0
        if is_second:
            time.sleep(0.5)  # until the first result was fetched
            before(sent)
        send(self, content, *others)
        if is_second:
            after(sent)
        if os.getpid() != parent and len(content) > 2**14:
            sent.append(1)

    class LongNamed(Trapped):
        def path(self, index: int) -> Path:
            return Path(f"{index}{'x' * 2**13}")

    for owner, name, value in [
        (torch.cuda, "is_available", lambda: True), (torch.accelerator, "is_available", lambda: True),
        (torch.accelerator, "current_accelerator", lambda: torch.device("cuda")),
        (torch.accelerator, "current_device_index", lambda: 0), (torch.accelerator, "set_device_index", lambda _: None),
        (Tensor, "pin_memory", lambda clips, *_: clips), (multiprocessing.connection.Connection, "_send", sending),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, name, value)
    loader = Loader(LongNamed({}), 4, 1, 7, ledger(tmp_path), LIMITS)

    def read_one() -> None:
        with closing(loader.batches(0)) as batches:
            next(batches)
            time.sleep(1.5)

    reading = threading.Thread(target=read_one, daemon=True)
    reading.start()
    reading.join(15)
    assert not reading.is_alive()
    assert multiprocessing.active_children() == []


@pytest.mark.timeout(30)
def test_a_lock_that_a_killed_worker_kept_does_not_hold_up_the_end() -> None:
    """torch's iterator tells its workers to end by an event, in which a killed one may have kept the lock."""
    watch = Watch(1, LIMITS)
    with closing(supervised(Numbers(), lambda first: range(first, 9), watch, lambda *_: "")) as numbers:
        assert next(numbers) == 0
        loaders = [x for x in gc.get_objects() if type(x).__name__ == "_MultiProcessingDataLoaderIter"]
        (iterator,) = (x for x in loaders if x._workers == watch.processes)
        iterator._workers_done_event._cond.acquire()
        del iterator, loaders


@pytest.mark.timeout(60)
def test_a_run_that_stops_while_it_takes_a_result_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The memory of a result is asked for by a connection, which a signal may end before the request is sent."""
    sharer: Any = resource_sharer._resource_sharer  # type: ignore[attr-defined]
    original = sharer.get_connection

    def hung_up(identity: tuple[Any, int]) -> Any:
        Client(identity[0], authkey=multiprocessing.current_process().authkey).close()
        return original(identity)

    monkeypatch.setattr(sharer, "get_connection", hung_up)
    watch = Watch(1, LIMITS)
    with closing(supervised(Tensors(), lambda first: range(first, 9), watch, lambda *_: "")) as tensors:
        assert [int(next(tensors)[0]) for _ in range(3)] == [0, 1, 2]
    assert capfd.readouterr().err == ""


class Tensors(Dataset[Tensor]):
    def __getitem__(self, number: int) -> Tensor:
        return torch.full((4,), number)


class Numbers(Dataset[int]):
    def __getitem__(self, number: int) -> int:
        return number


class Dying:
    """A process whose pipes are closed, which the system counts as ended a moment later."""

    def __init__(self) -> None:
        reading, writing = multiprocessing.Pipe(duplex=False)
        writing.close()
        self.pid, self.sentinel, self.exitcode = 4711, reading, None

    def join(self) -> None:
        self.exitcode = -9


def test_a_pipe_that_breaks_before_its_process_is_gone_is_its_death() -> None:
    def broken() -> Iterator[int]:
        raise ConnectionResetError(104, "Connection reset by peer")
        yield 0

    watch = Watch(1, LIMITS)
    watch.processes = [Dying()]
    with pytest.raises(WorkerError, match="a worker process ended with signal 9"):
        watch.take(broken())
