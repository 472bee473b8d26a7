"""`vqgan shard`, as it is typed: stopped, killed, shared among processes, and what it says."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.conftest import Compose
from tests.integration.tokenizer.test_encode import ROOT, Typed, start, typed  # noqa: F401  # a fixture
from tests.support.shard_folders import LENGTHS, write_numbered_videos
from tests.unit.video.test_video_file import Recording
from vqgan.data.sharding.index import ROW
from vqgan.data.sharding.writer import listed
from vqgan.training.run import run

QUICK = ("workers=0", "index=null", "resolution=32", "clip_frames=8", "preset=ultrafast")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos whose frames show their number."""
    folder = tmp_path_factory.mktemp("videos")
    write_numbered_videos(folder)
    return folder


def clips(folder: Path) -> dict[tuple[str, int], bytes]:
    """The clips of all shards by video and first frame; each must be there once, and whole."""
    found: dict[tuple[str, int], bytes] = {}
    manifest = json.loads((folder / "manifest.json").read_text())
    rows = np.fromfile(folder / manifest["index"]["file"], ROW)
    lines = [line for _, group in listed(folder) for line in group]
    assert [(line["offset"], line["bytes"], line["crc32"]) for line in lines] == rows[
        ["offset", "bytes", "crc32"]
    ].tolist()
    assert sum(count for _, _, count in manifest["shards"]) == manifest["clips"] == len(rows)
    for tar, group in listed(folder):
        assert [str(tar.name), tar.stat().st_size, len(group)] in manifest["shards"]
        with tarfile.open(tar) as opened:
            assert len(opened.getnames()) == 2 * len(group)
            for line in group:
                assert (line["video"], line["first_frame"]) not in found
                content = opened.extractfile(f"{line['key']}.mp4")
                assert content is not None
                found[line["video"], line["first_frame"]] = content.read()
    assert {path.name for path in folder.glob("*.tar")} == {name for name, _, _ in manifest["shards"]}
    return found


@pytest.fixture(scope="module")
def expected(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], bytes]:
    """What an undisturbed command writes."""
    folder = tmp_path_factory.mktemp("made") / "shards"
    out, err = start("shard", videos, "--out", folder, *QUICK).communicate(timeout=100)
    assert out.startswith(f"{folder}: 12 clips of 6 videos written. "), err
    return clips(folder)


def test_what_is_printed_last_trains(videos: Path, tmp_path: Path, typed: Typed, composed: Compose) -> None:  # noqa: F811
    code, out, err = typed("shard", videos, "--out", tmp_path / "shards", *QUICK)
    assert code == 0, err
    command = out.splitlines()[-1]
    assert command.startswith("python train.py data=shards data.root=")
    trainer = run(composed(*command.split()[2:], "trainer.steps=1"))
    assert len(trainer.loader.dataset) > 5


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_writes_the_same_clips(
    workers: int,
    videos: Path,
    expected: dict[tuple[str, int], bytes],
    tmp_path: Path,
    typed: Typed,  # noqa: F811
) -> None:
    code, _, err = typed("shard", videos, "--out", tmp_path / "shards", *QUICK[1:], f"workers={workers}")
    assert code == 0, err
    assert clips(tmp_path / "shards") == expected


@pytest.mark.slow
def test_several_processes_share_the_videos(
    videos: Path, expected: dict[tuple[str, int], bytes], tmp_path: Path
) -> None:
    processes = [
        start(
            "shard", videos, "--out", tmp_path / "shards", *QUICK, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(f"process {rank}: " in text and "3 videos written" in text for rank, text in enumerate(said))
    assert clips(tmp_path / "shards") == expected


def test_the_same_command_goes_on_and_takes_what_is_new(
    videos: Path,
    expected: dict[tuple[str, int], bytes],
    tmp_path: Path,
    typed: Typed,  # noqa: F811
) -> None:
    mine = shutil.copytree(videos, tmp_path / "videos")
    (mine / "a.mp4").rename(tmp_path / "a.mp4")
    assert typed("shard", mine, "--out", tmp_path / "shards", *QUICK)[0] == 0
    (tmp_path / "a.mp4").rename(mine / "a.mp4")
    code, out, _ = typed("shard", mine, "--out", tmp_path / "shards", *QUICK)
    assert code == 0
    assert ": 3 clips of 1 video written, those of 5 were there already. " in out
    assert clips(tmp_path / "shards") == expected
    said = typed("shard", mine, "--out", tmp_path / "shards", *QUICK)[1]
    assert ": 0 clips of 0 videos written, those of 6 were there already. " in said


@pytest.mark.slow
def test_a_killed_command_goes_on_without_losing_or_repeating_a_clip(
    videos: Path, expected: dict[tuple[str, int], bytes], tmp_path: Path
) -> None:
    mine, folder = tmp_path / "videos", tmp_path / "shards"
    for copy in range(4):
        shutil.copytree(videos, mine / str(copy))
    chance, kills = random.Random(0), 0
    while True:
        process = start_small(mine, folder)
        before, target = len(list(folder.glob("*.jsonl"))), chance.randint(1, 3)
        while process.poll() is None:
            if kills < 3 and len(list(folder.glob("*.jsonl"))) >= before + target:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.communicate(timeout=100)
        if process.returncode == 0:
            break
    assert kills >= 2
    found = clips(folder)
    assert found == {
        (f"{copy}/{name}", first): content for copy in range(4) for (name, first), content in expected.items()
    }
    assert not list(folder.glob(".*unfinished"))


def start_small(videos: Path, folder: Path) -> subprocess.Popen[str]:
    """The command, with shards so small that two or three videos fill one."""
    arguments = ("shard", videos, "--out", folder, *QUICK[1:], "workers=2")
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_SHARDS, *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


SMALL_SHARDS = """
import vqgan.data.sharding.folder as sharder
original = sharder.TarWriter
sharder.TarWriter = lambda folder, name, largest: original(folder, name, 9000)
from vqgan.commands import main
main()
"""


@pytest.mark.slow
def test_a_stopped_command_keeps_what_is_complete(
    videos: Path, expected: dict[tuple[str, int], bytes], tmp_path: Path
) -> None:
    mine, folder = tmp_path / "videos", tmp_path / "shards"
    for copy in range(40):
        shutil.copytree(videos, mine / str(copy))
    process = start("shard", mine, "--out", folder, *QUICK)
    unfinished = folder / ".shard-000-00.unfinished"
    while not (unfinished.exists() and unfinished.stat().st_size > 60_000):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "what was finished is saved. The same command goes on." in err
    found = clips(folder)
    videos_in = {name for name, _ in found}
    assert 5 <= len(videos_in) < 240
    assert found == {
        (name, first): expected[name.partition("/")[2], first]
        for name in videos_in for inner, first in expected if inner == name.partition("/")[2]
    }  # fmt: skip


def test_bad_videos_are_named_and_the_good_parts_of_damaged_ones_kept(
    videos: Path,
    tmp_path: Path,
    typed: Typed,  # noqa: F811
) -> None:
    mine, folder = shutil.copytree(videos, tmp_path / "videos"), tmp_path / "shards"
    (mine / "text.mp4").write_text("not a video\n" * 50)
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    content = bytearray(Recording(gop=8).write(mine / "damaged.mp4", list(noise)).read_bytes())
    middle = content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2
    content[middle : middle + 2000] = bytes(2000)
    (mine / "damaged.mp4").write_bytes(content)
    code, out, err = typed("shard", mine, "--out", folder, *QUICK)
    assert code == 0, err
    assert " of 7 videos written, 2 bad files (1 unreadable, 1 decoding failed). " in out
    bad = {Path(row["path"]).name for row in map(json.loads, (folder / "bad_files.jsonl").read_text().splitlines())}
    assert bad == {"text.mp4", "damaged.mp4"}
    starts = {first for name, first in clips(folder) if name == "damaged.mp4"}
    assert {0, 32} <= starts < {0, 8, 16, 24, 32}


def test_nothing_usable_is_said(tmp_path: Path, typed: Typed) -> None:  # noqa: F811
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "text.mp4").write_text("not a video\n" * 50)
    code, _, err = typed("shard", tmp_path / "videos", "--out", tmp_path / "shards", *QUICK)
    assert (code, err.startswith("None of the 1 files of ")) == (3, True)


def test_shards_of_another_kind_are_refused(videos: Path, tmp_path: Path, typed: Typed) -> None:  # noqa: F811
    assert typed("shard", videos / "a.mp4", "--out", tmp_path / "shards", *QUICK)[0] == 0
    code, _, err = typed("shard", videos, "--out", tmp_path / "shards", *QUICK, "crf=30")
    assert (code, "crf was 18 and is 30" in err) == (2, True)
    (tmp_path / "shards" / "manifest.json").write_text("{}")
    code, _, err = typed("shard", videos, "--out", tmp_path / "shards", *QUICK)
    assert (code, "is not one that vqgan shard writes" in err) == (2, True)


def test_two_commands_cannot_write_to_one_folder(videos: Path, tmp_path: Path, typed: Typed) -> None:  # noqa: F811
    (tmp_path / "shards").mkdir()
    with FileLock(tmp_path / "shards" / ".lock-000"):
        code, _, err = typed("shard", videos, "--out", tmp_path / "shards", *QUICK)
    assert (code, "Another process writes" in err) == (6, True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("resolution=31", "resolution must be even, at least 16"), ("crf=52", "crf must be in [0, 51]"),
        ("clip_frames=0", "clip_frames must be positive"), ("fps=8 stride=2", "stride must be 1 when fps is given"),
        ("colour=1", "Unknown key 'colour'"), ("preset=quick", "preset must be one of ultrafast, superfast, "),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named(
    value: str,
    said: str,
    videos: Path,
    tmp_path: Path,
    typed: Typed,  # noqa: F811
) -> None:
    code, _, err = typed("shard", videos, "--out", tmp_path / "shards", *QUICK, *value.split())
    assert (code, said in err) == (2, True), err


def test_a_frame_rate_is_kept_and_small_videos_are_not_enlarged(
    videos: Path,
    tmp_path: Path,
    typed: Typed,  # noqa: F811
) -> None:
    values = ("workers=0", "index=null", "resolution=256", "clip_frames=4", "fps=8")
    assert typed("shard", videos, "--out", tmp_path / "shards", *values)[0] == 0
    for _, lines in listed(tmp_path / "shards"):
        for line in lines:
            assert line["seconds"] == pytest.approx((line["frames"] - 1) / 8, abs=1e-3)
    frames: dict[str, int] = {}
    for _, lines in listed(tmp_path / "shards"):
        for line in lines:
            frames[line["video"]] = frames.get(line["video"], 0) + line["frames"]
    assert frames == {name: (count + 2) // 3 for name, count in LENGTHS.items()}
