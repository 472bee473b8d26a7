"""Storage that fails for a while is asked again, one that fails for good ends the run; no clip is ever exchanged."""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench.range_server import RangeHandler
from tests.conftest import LIMITS, Compose
from tests.support.runs import digest, rows
from tests.support.shard_folders import impatient, served, shards, write_numbered_videos, write_shards
from vqgan.data import BadFiles, Loader
from vqgan.data.sharding.storage import Storage
from vqgan.errors import ConfigError, DataError
from vqgan.training.run import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of six small videos."""
    folder = tmp_path_factory.mktemp("made")
    write_numbered_videos(folder / "videos")
    write_shards(folder / "shards", folder / "videos", workers=2)
    return folder / "shards"


class Flaky(RangeHandler):
    """Fails on purpose: with `failures`, one for each request for part of a tar, until there are no more."""

    failures: ClassVar[list[Callable[[Flaky], object]]] = []
    planned: ClassVar[list[Callable[[Flaky], object]]] = []  # from the moment on when the data are open
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path.endswith(".tar"):
            self.asked.append(f"{self.path} {self.headers['Range']}")
            if self.failures:
                self.failures.pop(0)(self)
                return
        super().do_GET()

    def break_off(self) -> None:
        """End in the middle of an answer."""
        self.send_response(206)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)
        self.close_connection = True

    def hang(self) -> None:
        """Answer when nobody waits any more."""
        time.sleep(3)

    def drop(self) -> None:
        """Close the connection without a word."""
        self.close_connection = True

    def all_of_it(self) -> None:
        """Know nothing of ranges, of this file."""
        self.answer(200, Path(self.translate_path(self.path)).read_bytes())


class WithoutRanges(Flaky):
    """As `python -m http.server`."""

    def do_GET(self) -> None:
        del self.headers["Range"]
        super().do_GET()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Flaky.failures, Flaky.asked = [], []


FAULTS: dict[str, Callable[[Flaky], object]] = {
    "busy": lambda server: server.answer(503, b"busy"),
    "slow down": lambda server: server.answer(429, b"slow down"),
    "broken off": Flaky.break_off,
    "dropped": Flaky.drop,
    "hung": Flaky.hang,
}


def batches(root: Path | str, tmp_path: Path, workers: int = 0, count: int = 6, **changes: Any) -> list[Tensor]:
    """Some of training, from data that are opened before anything fails."""
    bad_files = BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0)
    data = shards(root, tmp_path / "cache", **{**impatient(), **changes})
    loader = Loader(data.whole(bad_files), 2, workers, 7, bad_files, data.limits)
    Flaky.failures = list(Flaky.planned)
    with closing(loader.batches(0)) as stream:
        found = list(itertools.islice(stream, count))
    assert not (tmp_path / "bad_files.jsonl").exists(), "a storage that fails makes no file bad"
    return found


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_request_that_fails_is_made_again(
    fault: Callable[[Flaky], object], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = batches(made, tmp_path)
    monkeypatch.setattr(Flaky, "planned", [fault] * 4)
    with served(made, Flaky) as url:
        found = batches(url, tmp_path, request_attempts=6)
    assert Flaky.failures == []
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("fault", "workers"), [("busy", 0), ("busy", 2), ("hung", 0), ("hung", 2), ("dropped", 0)])
def test_a_storage_that_keeps_failing_ends_the_run_soon_and_says_so(
    fault: str, workers: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flaky, "planned", [FAULTS[fault]] * 10**4)
    before = time.monotonic()
    with served(made, Flaky) as url, pytest.raises(DataError) as error:
        batches(url, tmp_path, workers)
    assert time.monotonic() - before < 12
    assert str(error.value).startswith(f"{url}/shard-000-0")
    assert "(2 attempts). When it can be again, the same command goes on" in str(error.value)
    assert "Traceback" not in str(error.value)
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda server: server.answer(404, b""), "it is not there"),
        (lambda server: server.answer(403, b""), "403"),
        (Flaky.all_of_it, "must support range requests"),
    ],
)
def test_what_no_patience_mends_is_said_at_once(
    fault: Callable[[Flaky], object], said: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flaky, "planned", [fault] * 10**4)
    with served(made, Flaky) as url, pytest.raises(DataError, match=said):
        batches(url, tmp_path)
    assert len(Flaky.asked) <= 2 + 2 + 1, "one look at each shard, both clips at once, and the first again"


def test_the_clips_of_a_batch_are_asked_for_all_at_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(made, Flaky) as url:
        bad_files = BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0)
        dataset = shards(url, tmp_path).whole(bad_files)
        monkeypatch.setattr(Flaky, "latency", 0.5)
        Flaky.asked = []
        before = time.monotonic()
        with closing(Loader(dataset, 8, 0, 7, bad_files, LIMITS).batches(0)) as stream:
            next(stream)
        assert time.monotonic() - before < 4 * 0.5
    assert len(Flaky.asked) == len(set(Flaky.asked)) == 8


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("ssh://host/folder", "may begin with file://"),
        ("simplecache::http://host/folder", "may begin with file://"),
        ("reference://", "may begin with file://"),
        ("nonsense://folder", "may begin with file://"),
    ],
)
def test_what_is_no_storage_is_refused(root: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data.root={root} is not a folder or a URL .*{said}"):
        Storage(root, "data.root", 5, 3)


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^data.root=s3://bucket/folder needs a package .*Install s3fs"):
        Storage("s3://bucket/folder", "data.root", 5, 3)


# Whole runs

VALUES = (
    "data=shards", "trainer.steps=6", "trainer.log_every=1", "trainer.checkpoint_every=2", "data.clip_frames=2",
    "data.batch_size=2", "loss.discriminator_start=3", "trainer.evaluate_every=3", "data.resolution=16",
    "data.request_seconds=0.5", "data.request_attempts=2",
)  # fmt: skip


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.slow
def test_a_run_whose_storage_fails_goes_on_to_the_same_bits(
    composed: Compose, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(composed(*VALUES, f"data.root={made}", f"run_dir={tmp_path / 'whole'}"))
    with served(made, Flaky) as url:
        for workers, batch in ((0, 3), (2, 5)):

            def cut(self: Loader, first: int, original: Any = Loader.batches, batch: int = batch) -> Any:
                for number, clips in enumerate(original(self, first), first):
                    if number == batch:
                        raise Killed
                    yield clips
                    if number == batch - 2:
                        Flaky.failures = [FAULTS["busy"]] * 100

            values = (*VALUES, f"data.root={url}", f"data.workers={workers}", f"run_dir={tmp_path / 'cut'}")
            with monkeypatch.context() as patch:
                patch.setattr(Loader, "batches", cut)
                with pytest.raises((DataError, Killed)):  # with workers the clips may have come before
                    run(composed(*values))
            Flaky.failures = []
        run(composed(*values))
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_other_shards_are_other_data(composed: Compose, made: Path, tmp_path: Path) -> None:
    run(composed(*VALUES, f"data.root={made}", "trainer.steps=1"))
    write_shards(tmp_path / "other", made.parent / "videos", crf=30)
    with pytest.raises(ConfigError, match="The data are not those"):
        run(composed(*VALUES, f"data.root={tmp_path / 'other'}", "trainer.steps=2"))


@pytest.mark.parametrize("files", ["all", "tars"])
def test_a_server_without_ranges_is_told_before_whole_shards_are_fetched(
    made: Path, tmp_path: Path, files: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flaky, "failures", [Flaky.all_of_it] * 100)
    with (
        served(made, WithoutRanges if files == "all" else Flaky) as url,
        pytest.raises(DataError, match=r"bytes came where 1 were asked for\. The server must support range requests"),
    ):
        batches(url, tmp_path)
    assert bool(Flaky.asked) == (files == "tars")
