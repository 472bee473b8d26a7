"""Reading processes that crash, hang or are killed cost one file at most, and not a bit of the result."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import LIMITS, Compose
from tests.support.runs import digest
from tests.support.traps import (
    CLIPS,
    Cursed,
    Deadly,
    Large,
    Stored,
    Trapped,
    compute_forever,
    crash,
    eat_memory,
    hang,
    hang_in_c,
    scan_and_crash,
    scan_and_hang,
    vanish,
)  # fmt: skip
from tests.unit.video.test_video_file import Recording
from vqgan.data import BadFiles, Limits, Loader, Videos, videos
from vqgan.data.loader import read_evenly
from vqgan.data.reading import workers
from vqgan.data.reading.workers import PROCESS, Watch, supervised
from vqgan.errors import DataError
from vqgan.training.run import run

pytestmark = pytest.mark.slow

IMPATIENT = Limits(seconds=1, megabytes=300, stall_seconds=1.5)


def ledger(tmp_path: Path) -> BadFiles:
    bad_files = BadFiles(tmp_path / f"bad_files{time.monotonic_ns()}.jsonl", 1.0, 0)
    bad_files.total = CLIPS
    return bad_files


def processes(watch: Watch) -> list[int]:
    return [int(process) for process in watch.slots[:, PROCESS]]


def ended(process: int) -> bool:
    """Whether it is gone, or about to be."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def drawn(loader: Loader, count: int = 12, first: int = 0) -> Tensor:
    with closing(loader.batches(first)) as batches:
        return torch.cat(list(itertools.islice(batches, count)))


FATAL = {"a crash": crash, "an exit": vanish, "a hang": hang, "a hang in C": hang_in_c}


@pytest.mark.parametrize("trap", FATAL.values(), ids=FATAL.keys())
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_file_that_ends_its_worker_is_left_out_and_reported(tmp_path: Path, trap: Any, workers: int) -> None:
    bad_files = ledger(tmp_path)
    loader = Loader(Trapped({5: trap}), 4, workers, 7, bad_files, IMPATIENT)
    with pytest.warns(UserWarning, match="Reading goes on with new worker processes") as said:
        clips = drawn(loader)
    assert len(clips) == 48
    assert 5 not in clips[:, 0, 0, 0, 0]
    whole = drawn(Loader(Trapped({}), 4, 0, 7, ledger(tmp_path), LIMITS))
    others = whole[:, 0, 0, 0, 0] != 5
    assert torch.equal(clips[others], whole[others]), "nothing else is skipped or repeated"
    assert list(bad_files.reasons) == ["clip5"]
    assert len(said) == 2, "it gets a second chance"
    assert all(map(ended, processes(loader.watch)))


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
                os.kill(processes(loader.watch)[0], sent)
                time.sleep(0.1)
    return torch.cat(found)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_result_that_was_sent_in_part_is_read_again(workers: int, sent: signal.Signals) -> None:
    watch = Watch(workers, IMPATIENT)
    results = supervised(Large(), range(9), watch, lambda *_: pytest.fail("nothing is lost"))
    found = []

    def read_all() -> None:
        found.append(next(results))
        time.sleep(0.5)  # now a worker is in the middle of sending
        for process in processes(watch):
            os.kill(process, sent)
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
    with (
        pytest.warns(UserWarning, match="Reading goes on") as said,
        pytest.raises(DataError, match=r"Reading failed 4 times in a row: a worker process ended with exit code 3"),
    ):
        drawn(Loader(Cursed(), 4, 2, 7, ledger(tmp_path), IMPATIENT))
    assert len(said) == 3


@pytest.fixture
def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage that is out while this file is there, for whoever asks."""
    file = tmp_path / "outage"
    file.touch()
    monkeypatch.setattr(workers, "ANSWER", 0.3)
    monkeypatch.setenv("OUTAGE", str(file))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_an_outage_of_the_storage_costs_no_file(tmp_path: Path, outage: Path, count: int) -> None:
    bad_files, said = ledger(tmp_path), list[str]()

    def back_after_two(message: Warning | str, *_: Any, **__: Any) -> None:
        said.append(str(message))
        if len(said) == 2:
            outage.unlink()

    loader = Loader(Stored(), 4, count, 7, bad_files, replace(IMPATIENT, stall_seconds=0.6))
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
    loader = Loader(Stored(), 4, 2, 7, bad_files, replace(IMPATIENT, stall_seconds=0.6))
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
@pytest.mark.parametrize("scan", [scan_and_crash, scan_and_hang])
def test_a_file_that_ends_its_scanner_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan: Any) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(5):
        Recording().write_numbers(tmp_path, 8).rename(folder / f"{number}.mp4")

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
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("MARKS", str(marks))
    monkeypatch.setattr(videos, "VideoFolder", Deadly)
    with pytest.warns(UserWarning, match=r"ended with signal 9"):
        trainer = run(composed(*values, f"run_dir={tmp_path / 'killed'}"))
    assert len(list(marks.iterdir())) == 3
    if not trainer.loader.sequence.lost:  # else a file was unlucky twice, and is left out
        assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
