"""No kind of broken video ends, blocks or misleads a run: what cannot be used is written down."""

from __future__ import annotations

import itertools
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import LIMITS
from tests.support import corpus
from tests.support.corpus import CLIP, ENDLESS, KINDS, flipped, good, make_corpus, one_large_picture
from tests.support.parts import PLAIN
from tests.unit.data.test_folder import bad_files, entries, videos
from tests.unit.video.test_video_file import number_shown
from vqgan.data import Limits, Loader
from vqgan.video.container import CALL_SECONDS
from vqgan.video.file import scan_video
from vqgan.video.reader import read_frames

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BATCH = 4
BLACK = 30  # no pixel of a black frame is as bright; the darkest of a good one are at 40
SCAN_SECONDS, MORE_MEMORY = 10, 512  # of a file; beyond what good files need, in MB

# Displayed (height, width) at 48 pixels of the shorter side where that is not 48×64, and first number shown if not 1.
# Of the header that lies about its size, the shape of a pixel that follows from it is believed.
DISPLAYED = {"rotated": (64, 48), "anamorphic": (48, 128), "claims 32767×32767": (48, 85)}
FIRST_SHOWN = {"starts between keyframes": 8}
HEAVY = re.compile(r"[68]000×|swells|million|flipped")  # read alone in slow tests only, like good ones
NOT_IN_ORDER = {"rotated", "400 frames at one place"}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The server that URLs in files point to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(corpus, "port", server.getsockname()[1])
        yield server


def assert_not_asked(listener: socket.socket) -> None:
    assert select.select([listener], [], [], 0)[0] == []


@dataclass
class Read:
    """What came of a folder."""

    scan_seconds: float
    clips: dict[Path, set[int]]  # of each file in the training set
    drawn: dict[Path, set[int]]  # those that were read, of each file
    ledger: dict[Path, str]


def add_good(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"good{number}.mp4").write_bytes(good())
    return folder


def read_folder(root: Path, epochs: int = 2, **changes: Any) -> Read:
    """Scan a folder, then read all its clips in each of some epochs; good files are among them."""
    add_good(root / "good")
    elsewhere = add_good(root.parent / "validation", 1)
    settings = {"workers": 1, "val_root": str(elsewhere), "limits": LIMITS, **changes}
    ledger = bad_files(root, max_files=10**6)
    since = time.monotonic()
    data = videos(root, **settings)
    train, _ = data.datasets(ledger)
    scan_seconds = time.monotonic() - since
    clips: dict[Path, set[int]] = {}
    for index in range(len(train)):
        clips.setdefault(train.path(index), set()).add(index)
    drawn: dict[Path, set[int]] = {}
    loader = Loader(train, BATCH, data.workers, 7, ledger, data.limits)
    with closing(loader.batches(0)) as batches:
        for batch in itertools.islice(batches, -(-epochs * len(train) // BATCH)):
            assert batch.shape == (BATCH, 4, 32, 32, 3)
            for clip, source in zip(batch, loader.drawn[max(loader.drawn)]):
                assert clip.amax(dim=(1, 2, 3)).min() >= BLACK, source
                drawn.setdefault(Path(source["path"]), set()).add(source["clip"])
    rows = [(Path(path), reason) for path, reason in entries(root)]
    assert len(rows) == len(set(rows))
    return Read(scan_seconds, clips, drawn, dict(rows))


def assert_verdict(path: Path, usable: bool | None, read: Read) -> None:
    """Whether the file was used or reported, as it should be; never neither."""
    reason = read.ledger.get(path)
    if reason is not None:
        assert re.match(r"\w", reason), reason
        assert "Error" not in reason  # words, not a class of Python's
    if usable:
        assert reason is None or reason.startswith("truncated"), reason
        assert read.drawn[path]
        assert reason is not None or read.drawn[path] == read.clips[path]
    elif usable is False:
        assert reason is not None
        assert path not in read.drawn
    else:
        assert reason is not None or path in read.drawn


def assert_good_ones_are_used(root: Path, read: Read) -> None:
    names = {root / "good" / f"good{number}.mp4" for number in range(3)}
    assert not names & set(read.ledger)
    assert all(read.drawn[name] for name in names)


def test_the_corpus_is_large_and_quickly_made(tmp_path: Path) -> None:
    since = time.monotonic()
    made = make_corpus(tmp_path)
    assert time.monotonic() - since < 20
    assert len(made) == len(KINDS) >= 45
    assert {usable for _, usable in made.values()} == {True, False, None}
    assert all(path.is_symlink() or path.exists() for path in made)
    assert sum(path.lstat().st_blocks * 512 for path in made) < 32e6


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if usable or HEAVY.search(name) else [])
        for name, (_, usable) in KINDS.items()
    ],
)
@pytest.mark.slow
def test_every_kind_is_used_or_reported(name: str, tmp_path: Path, listener: socket.socket) -> None:
    make, usable = KINDS[name]
    folder = tmp_path / "videos" / "odd"
    folder.mkdir(parents=True)
    path = make(folder)
    read = read_folder(tmp_path / "videos")
    assert_verdict(path, usable, read)
    assert set(read.ledger) <= {path}
    assert_good_ones_are_used(tmp_path / "videos", read)
    assert read.scan_seconds <= SCAN_SECONDS
    assert_not_asked(listener)


@pytest.mark.parametrize("name", [name for name, (_, usable) in KINDS.items() if usable])
@pytest.mark.slow
def test_what_can_be_used_is_shown_as_it_was_recorded(name: str, tmp_path: Path) -> None:
    video, complaint = scan_video(KINDS[name][0](tmp_path))
    count = len(video.pts) if complaint is None else 2 * CLIP
    shown = read_frames(video, np.arange(count), 48)
    assert shown.shape[1:3] == DISPLAYED.get(name, (48, 64))
    if name not in NOT_IN_ORDER:
        first = FIRST_SHOWN.get(name, 1)
        assert [number_shown(frame) for frame in shown] == list(range(first, first + count))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fps", [None, pytest.param(10.0, marks=pytest.mark.slow)])
def test_all_kinds_together_are_used_or_reported(fps: float | None, tmp_path: Path, listener: socket.socket) -> None:
    root = tmp_path / "videos"
    made = make_corpus(root)
    read = read_folder(root, 1, workers=2, fps=fps, stride=None if fps else 1)
    for path, (_, usable) in made.items():
        assert_verdict(path, usable if fps is None or usable is False else None, read)
    assert set(read.ledger) <= set(made)
    assert_good_ones_are_used(root, read)
    assert_not_asked(listener)


def test_looking_into_large_files_leaves_nothing_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "video.mkv"
    path.write_bytes(one_large_picture(2000))  # 16 MB a frame
    scan_video(path)
    before = memory(os.getpid())
    for _ in range(10):
        scan_video(path)
    assert memory(os.getpid()) <= before + 50


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ENDLESS)
def test_no_file_takes_longer_than_it_may(name: str, tmp_path: Path) -> None:
    path = ENDLESS[name](tmp_path)
    limits = Limits(seconds=2, megabytes=512, stall_seconds=60)
    ledger = bad_files(add_good(tmp_path / "good"))
    videos(tmp_path / "good", workers=1, limits=limits).datasets(ledger)  # from now on there is where to fork from
    path.rename(tmp_path / "good" / path.name)
    since = time.monotonic()
    videos(tmp_path / "good", workers=1, limits=limits).datasets(ledger)
    # On a busy machine FFmpeg is broken off as it opens the file and again within a packet, each time by the clock.
    assert time.monotonic() - since <= 2 * CALL_SECONDS + limits.seconds


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_no_flipped_bits_and_no_cut_end_a_run(suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    content = good(suffix)
    for seed in range(150):
        damaged = flipped(content, seed, 2 ** (seed % 7))
        if seed % 3 == 0:
            damaged = damaged[: np.random.default_rng(seed).integers(len(damaged))]
        (root / f"{seed}.{suffix}").write_bytes(damaged)
    read = read_folder(root, workers=2)
    for path in root.glob(f"*.{suffix}"):
        assert_verdict(path, None, read)
    assert_good_ones_are_used(root, read)


# The command


@dataclass
class Run:
    """A command that ended, and what it took."""

    code: int
    error: str
    seconds: float
    megabytes: float  # of all its processes at once, at the worst moment

    @property
    def paragraph(self) -> str:
        """The error's text, which is one paragraph."""
        lines = self.error.strip().splitlines()
        assert len(lines) == 1, self.error
        return lines[0]


def train(root: Path, folder: Path, *overrides: str) -> Run:
    """Train on a folder for three steps."""
    command = [
        sys.executable, str(ROOT / "train.py"), *PLAIN, "data=videos", f"data.root={root}", "logger=none",
        "trainer.steps=3",
        "trainer.device=cpu", "data.workers=2", "data.validation_clips=2", "data.batch_size=2", "backbone.channels=8",
        "backbone.resolution=16", "model.quantizer.codebook_size=16", "discriminator.channels=4",
        "data.max_bad_files=0", f"run_dir={folder}", *overrides,
    ]  # fmt: skip
    log = folder.with_suffix(".log")
    since, most = time.monotonic(), 0.0
    with log.open("w") as errors, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors) as run:
        while run.poll() is None:
            most = max(most, memory(run.pid))
            time.sleep(0.01)
    return Run(run.returncode, log.read_text(), time.monotonic() - since, most)


def memory(process: int) -> float:
    """Resident megabytes of a process and of all that it started; what they share counts each time."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        started = " ".join(file.read_text() for file in Path(f"/proc/{process}/task").glob("*/children"))
    except OSError:  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / 2**20 + sum(memory(int(child)) for child in started.split())


@dataclass
class Mix:
    """A folder of which some share is bad."""

    root: Path
    bad: set[Path]  # files that must be reported
    odd: set[Path]  # files that may be
    total: int

    def reported(self, folder: Path) -> set[Path]:
        """What the run has written down; all that had to be, and no good file."""
        rows = {Path(path): reason for path, reason in entries(folder / "run" / "of")}
        assert all(rows.values())
        assert self.bad <= set(rows) <= self.bad | self.odd
        return set(rows)


def mix(folder: Path, names: list[str], total: int) -> Mix:
    """A folder with these kinds of files among good ones."""
    root = folder / "mix"
    bad, odd = set(), set()
    for number, name in enumerate(names):
        make, usable = KINDS[name]
        own = root / f"{number:03}"
        own.mkdir(parents=True)
        path = make(own)
        (bad if usable is False else odd).add(path)
    (root / "good").mkdir(parents=True)
    for number in range(total - len(names)):
        (root / "good" / f"{number:04}.mp4").write_bytes(good())
    return Mix(root, bad, odd, total)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same command on good files alone."""
    folder = tmp_path_factory.mktemp("base")
    run = train(mix(folder, [], 200).root, folder / "run")
    assert (run.code, run.error) == (0, "")
    return run


BAD = [name for name, (_, usable) in KINDS.items() if usable is False]
WORST = ["PNG of 16000×16000 in mkv", "HLS playlist of a server", "FIFO", "mp4, contents first, cut at 50 %"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_one_per_cent_of_bad_files_is_left_out(tmp_path: Path, listener: socket.socket, base: Run) -> None:
    files = mix(tmp_path, WORST, 400)
    run = train(files.root, tmp_path / "run")
    assert (run.code, run.error) == (0, "")
    assert files.reported(tmp_path) == files.bad
    assert run.megabytes <= base.megabytes + MORE_MEMORY
    assert_not_asked(listener)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("names", "total"),
    [
        pytest.param(list(KINDS), 10 * len(BAD), id="10 %", marks=pytest.mark.slow),
        pytest.param(BAD, len(BAD) * 10 // 6, id="60 %"),
    ],
)
def test_too_many_bad_files_end_the_run(
    names: list[str], total: int, tmp_path: Path, listener: socket.socket, base: Run
) -> None:
    files = mix(tmp_path, names, total)
    run = train(files.root, tmp_path / "run")
    assert run.code == 3, run.error
    reported = files.reported(tmp_path)
    assert run.paragraph.startswith(f"{len(reported)} of {total} files cannot be used (")
    assert run.megabytes <= base.megabytes + MORE_MEMORY
    assert_not_asked(listener)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_run_trains_on_what_is_left(share: float, tmp_path: Path, listener: socket.socket, base: Run) -> None:
    names = list(KINDS) if share < 0.5 else BAD + [name for name, (_, usable) in KINDS.items() if usable is None]
    files = mix(tmp_path, names, max(round(len(BAD) / share), len(names)))
    run = train(files.root, tmp_path / "run", "data.max_bad_fraction=0.9", "trainer.steps=200")
    assert run.code == 0, run.error
    files.reported(tmp_path)
    assert run.megabytes <= base.megabytes + MORE_MEMORY
    assert_not_asked(listener)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_large_files_at_the_same_time_take_no_more_memory_than_one_may(tmp_path: Path, base: Run) -> None:
    root = mix(tmp_path, [], 20).root
    for number in range(6):
        (root / f"large{number}.mkv").write_bytes(one_large_picture(8000))
    run = train(root, tmp_path / "run", "data.max_bad_fraction=0.9")
    assert (run.code, run.error) == (0, "")
    assert run.megabytes <= base.megabytes + MORE_MEMORY
