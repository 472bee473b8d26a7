"""Clips from shards are the right ones, the same wherever the shards lie, and what is damaged is found."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import tarfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import av
import fsspec
import numpy as np
import pytest
import torch
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_expander

from tests.conftest import LIMITS
from tests.support.shard_folders import LENGTHS, served, shards, write_numbered_videos, write_shards
from tests.unit.video.test_video_file import number_shown
from vqgan.data import BadFiles, ClipDataset, Loader, Videos
from vqgan.data.folder import name_hash
from vqgan.data.sharding.clip import pack_clip, unpack_clip
from vqgan.data.sharding.index import LARGEST_CLIP, ROW
from vqgan.data.sharding.order import WindowedOrder
from vqgan.data.sharding.writer import TarWriter, listed, write_index
from vqgan.data.shards import ShardedClips
from vqgan.errors import ConfigError, DataError, InvalidValueError, StorageError, UnusableError
from vqgan.files.lock import hold
from vqgan.runtime.signals import StopRequested, StopSignals
from vqgan.video.file import VideoFile, scan_video
from vqgan.video.reader import read_frames
from vqgan.video.writer import VideoWriter


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos whose frames show their number."""
    folder = tmp_path_factory.mktemp("videos")
    write_numbered_videos(folder)
    return folder


@pytest.fixture(scope="module")
def made(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their shards: two videos in each."""
    folder = tmp_path_factory.mktemp("shards") / "made"
    write_shards(folder, videos, workers=2)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "shards"))


def ledger(tmp_path: Path) -> BadFiles:
    return BadFiles(tmp_path / "bad_files.jsonl", 1.0, 0)


def entries(tmp_path: Path) -> dict[str, str]:
    """The ledger's reasons, by path."""
    file = tmp_path / "bad_files.jsonl"
    rows = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    return {row["path"]: row["reason"] for row in rows}


def everything(root: Path | str, tmp_path: Path, **changes: Any) -> ShardedClips:
    dataset = shards(root, tmp_path / "cache", **changes).whole(ledger(tmp_path))
    assert isinstance(dataset, ShardedClips)
    return dataset


def batches(dataset: ClipDataset, tmp_path: Path, workers: int = 0, count: int = 12) -> list[Tensor]:
    with closing(Loader(dataset, 4, workers, 7, ledger(tmp_path), LIMITS).batches(0)) as stream:
        return list(itertools.islice(stream, count))


def lists(folder: Path) -> list[dict[str, Any]]:
    """What the lists say of all clips, in the order of the index."""
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for file in files if "bad" not in file.name for line in file.read_text().splitlines()]


# What is in a shard


def test_every_frame_is_in_one_clip_and_every_clip_has_the_right_ones(made: Path, tmp_path: Path) -> None:
    clips, seen = everything(made, tmp_path, clip_frames=1), dict[str, list[int]]()
    for number, line in enumerate(lists(made)):
        video = unpack_clip(clips.path(number), clips._piece(number))
        assert line["frames"] == len(video.pts)
        shown = [number_shown(replaced(clips, 1)[number].numpy()[0])]  # the one in the middle
        assert shown == [line["first_frame"] + (len(video.pts) - 1) // 2]
        seen.setdefault(line["video"], []).extend(range(line["first_frame"], line["first_frame"] + line["frames"]))
        assert line["frames"] == LENGTHS[line["video"]] < 8 or 8 <= line["frames"] < 16
        assert np.diff(video.pts * video.time_base) == pytest.approx(1 / 24, abs=1e-4)
        assert len(video.keyframes) >= -(-len(video.pts) // 4)
    assert {name: sorted(frames) for name, frames in seen.items()} == {n: list(range(k)) for n, k in LENGTHS.items()}


def replaced(clips: ShardedClips, frames: int) -> ShardedClips:
    return ShardedClips(replace(clips.settings, clip_frames=frames), clips.storage, clips.index)


def samples(tar: Path) -> list[dict[str, Any]]:
    """The clips of a shard as WebDataset reads them."""
    with tar.open("rb") as file:
        return list(group_by_keys(tar_file_expander([{"url": tar.name, "stream": file}])))


def test_webdataset_and_tar_read_the_shards(made: Path) -> None:
    tars = sorted(made.glob("*.tar"))
    assert len(tars) == 2
    found = [(tar.name, sample) for tar in tars for sample in samples(tar)]
    assert [(tar, sample["__key__"]) for tar, sample in found] == [
        (tar, line["key"]) for tar, line in zip(tars_of(made), lists(made))
    ]
    for (_, sample), line in zip(found, lists(made)):
        assert json.loads(sample["json"])["video"] == line["video"]
        scanned, complaint = scan_video(Path("clip.mp4"), sample["mp4"])
        assert (complaint, len(scanned.pts)) == (None, line["frames"])
    for tar in tars:
        with tarfile.open(tar) as opened:
            assert len(opened.getnames()) == 2 * tars_of(made).count(tar.name)


def tars_of(folder: Path) -> list[str]:
    """The tar of each clip."""
    files = sorted(folder.glob("shard-*.jsonl"))
    return [file.with_suffix(".tar").name for file in files for _ in file.read_text().splitlines()]


def test_a_clip_of_training_starts_anywhere_and_of_validation_in_the_middle(made: Path, tmp_path: Path) -> None:
    clips = everything(made, tmp_path)
    number = next(n for n, line in enumerate(lists(made)) if line["video"] == "b.mp4" and not line["first_frame"])
    length = lists(made)[number]["frames"]
    shown = {
        tuple(number_shown(frame) for frame in clips.read(number, np.random.default_rng(seed)).numpy())
        for seed in range(60)
    }
    assert shown == {tuple(range(start, start + 4)) for start in range(length - 3)}
    middle = (length - 4) // 2
    assert [number_shown(frame) for frame in clips[number].numpy()] == list(range(middle, middle + 4))


def test_clips_at_a_frame_rate_show_what_is_on_screen(made: Path, tmp_path: Path) -> None:
    clips = everything(made, tmp_path, clip_frames=3, stride=None, fps=8.0)
    long_enough = [line for line in lists(made) if line["frames"] >= 7]
    assert len(clips) == len(long_enough)
    for number, line in enumerate(long_enough):
        first, *rest = [number_shown(frame) for frame in clips[number].numpy()]
        assert line["first_frame"] <= first
        assert rest == [first + 3, first + 6]


def test_clips_that_are_too_short_are_not_among_them(made: Path, tmp_path: Path) -> None:
    assert len(everything(made, tmp_path, clip_frames=5)) == len(lists(made))
    assert len(everything(made, tmp_path, clip_frames=6)) == len(lists(made)) - 1
    assert len(everything(made, tmp_path, clip_frames=2, stride=5)) == len(lists(made)) - 1
    with pytest.raises(DataError, match=r"too short for data.clip_frames=40"):
        everything(made, tmp_path, clip_frames=40)


def test_frames_are_those_of_the_videos_but_for_x264(videos: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "fine", videos, crf=0)
    clips = everything(tmp_path / "fine", tmp_path, clip_frames=4)
    for number, line in enumerate(lists(tmp_path / "fine")):
        video, _ = scan_video(videos / line["video"])
        original = whole_video(video)[line["first_frame"] + (line["frames"] - 4) // 2][None]
        difference = (clips[number].float() - original.float()).abs()
        assert difference.mean() < 0.5
        assert difference.max() < 4


def whole_video(video: VideoFile) -> Tensor:
    """Its clips of four frames, by their first frame."""
    frames = read_frames(video, np.arange(len(video.pts)), 32, 2)
    left = (frames.shape[2] - 32) // 2
    return torch.from_numpy(np.stack([frames[n : n + 4, :, left : left + 32] for n in range(len(frames) - 3)]))


def test_files_as_they_are_come_back_as_they_were(videos: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", videos, reencode=False)
    tars = sorted((tmp_path / "shards").glob("*.tar"))
    stored = {json.loads(sample["json"])["video"]: sample["mp4"] for tar in tars for sample in samples(tar)}
    assert stored == {name: (videos / name).read_bytes() for name in LENGTHS}
    clips = everything(tmp_path / "shards", tmp_path)
    assert [clips[n].shape for n in range(len(clips))] == [(4, 32, 32, 3)] * len(LENGTHS)


# The two sides, and the order


def test_videos_are_on_the_sides_that_they_have_as_files(videos: Path, made: Path, tmp_path: Path) -> None:
    names = {name_hash(name): name for name in LENGTHS}
    for fraction in (0.01, 0.2, 0.5, 0.7, 0.99):
        as_files = Videos(
            root=str(videos), val_root=None, val_fraction=fraction, validation_clips=4, resolution=32, clip_frames=4,
            stride=1, fps=None, crop="center", flip=False, batch_size=2, workers=0, max_bad_fraction=0.0,
            max_bad_files=0, limits=LIMITS,
        )  # fmt: skip
        sides = shards(made, tmp_path, val_fraction=fraction).datasets(ledger(tmp_path))
        for clips, files in zip(sides, as_files.datasets(ledger(tmp_path))):
            found = {names[int(clips.video(n).name, 16)] for n in range(len(clips))}
            assert found == {files.path(n).relative_to(videos).as_posix() for n in range(len(files))}
        assert sum(map(len, sides)) == len(lists(made))


def test_a_single_video_is_on_both_sides(videos: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", videos / "a.mp4")
    training, validation = shards(tmp_path / "shards", tmp_path).datasets(ledger(tmp_path))
    assert len(training) == len(validation) == 3


def test_other_shards_can_be_validated_on(made: Path, videos: Path, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", videos / "a.mp4")
    data = shards(made, tmp_path, val_root=str(tmp_path / "shards"))
    training, validation = data.datasets(ledger(tmp_path))
    assert (len(training), len(validation)) == (len(lists(made)), 3)


def test_the_same_shards_for_both_are_refused(made: Path, folder: Path, tmp_path: Path) -> None:
    for same in (made, folder):  # a copy
        with pytest.raises(ConfigError, match=f"^data.root={made} and data.val_root={same} hold the same"):
            shards(made, tmp_path, val_root=str(same)).datasets(ledger(tmp_path))


def test_the_fingerprint_is_of_what_is_used(made: Path, folder: Path, videos: Path, tmp_path: Path) -> None:
    def fingerprint(root: Path, **changes: Any) -> str:
        data = shards(root, tmp_path, **changes)
        data.datasets(ledger(tmp_path))
        return data.fingerprint

    assert fingerprint(folder) == fingerprint(made)
    write_shards(tmp_path / "other", videos, crf=30)
    others = [fingerprint(tmp_path / "other"), fingerprint(made, val_fraction=0.5), fingerprint(made, clip_frames=6)]
    assert len({fingerprint(made), *others}) == 4


@pytest.mark.parametrize(("counts", "window"), [([3, 0, 5, 1, 4], 2), ([7], 4), ([2] * 9, 1), ([0, 4, 0, 0], 1)])
def test_every_clip_comes_once_in_an_order(counts: list[int], window: int) -> None:
    orders = [WindowedOrder(np.cumsum(counts), window, 5, epoch) for epoch in range(3)]
    sequences = [[order[n] for n in range(sum(counts))] for order in orders]
    assert all(sorted(sequence) == list(range(sum(counts))) for sequence in sequences)
    assert [WindowedOrder(np.cumsum(counts), window, 5, 1)[n] for n in range(sum(counts))] == sequences[1]
    if max(counts) > 5:
        assert len({tuple(sequence) for sequence in sequences}) == 3


def test_clips_of_so_many_shards_are_mixed_at_a_time() -> None:
    order = WindowedOrder(np.cumsum([50] * 12), 3, 5, 0)
    sequence = np.array([order[n] for n in range(600)]) // 50
    for window in sequence.reshape(4, 150):
        assert len(set(window)) == 3
        assert len(set(window[:20])) == 3, "mixed, not one after the other"


def test_a_billion_clips_cost_an_order_next_to_nothing() -> None:
    ends = np.arange(1, 200_001) * 5000
    order = WindowedOrder(ends, 32, 5, 0)
    seen = {order[position] for position in range(0, 10**9, 10**8 + 7)}
    assert len(seen) == 10
    assert all(0 <= clip < 10**9 for clip in seen)


# From anywhere the same


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_reads_the_same_from_near_and_far(workers: int, made: Path, tmp_path: Path) -> None:
    near = batches(everything(made, tmp_path), tmp_path)
    with served(made) as url:
        far = batches(everything(url, tmp_path), tmp_path, workers)
    assert all(torch.equal(a, b) for a, b in zip(near, far, strict=True))
    assert entries(tmp_path) == {}


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_urls_of_other_storages_read_the_same(protocol: str, made: Path, tmp_path: Path) -> None:
    url = f"file://{made}" if protocol == "file" else "memory://corpus/made"
    if protocol == "memory":
        fsspec.filesystem("memory").put(str(made), "/corpus/made", recursive=True)
    near, far = (batches(everything(root, tmp_path), tmp_path, count=3) for root in (made, url))
    assert all(torch.equal(a, b) for a, b in zip(near, far, strict=True))


def test_the_data_set_goes_to_other_processes_without_its_index(made: Path, tmp_path: Path) -> None:
    clips = everything(made, tmp_path)
    sent = pickle.dumps(clips)
    assert clips.index.rows.tobytes()[:64] not in sent
    assert torch.equal(pickle.loads(sent)[3], clips[3])


def test_the_index_from_afar_is_fetched_once_and_again_if_it_is_damaged(made: Path, tmp_path: Path) -> None:
    with served(made) as url:
        everything(url, tmp_path)
        (kept,) = (tmp_path / "cache").glob("*.bin")
        before = kept.stat().st_mtime_ns
        everything(url, tmp_path)
        assert kept.stat().st_mtime_ns == before
        kept.write_bytes(bytes(kept.stat().st_size))
        assert len(everything(url, tmp_path)) == len(lists(made))


# Damage


def damage(folder: Path, number: int) -> str:
    """Flip one bit in the middle of a clip; returns how it is reported."""
    line, tar = lists(folder)[number], tars_of(folder)[number]
    content = bytearray((folder / tar).read_bytes())
    content[line["offset"] + line["bytes"] // 2] ^= 1
    (folder / tar).write_bytes(content)
    return str(folder / tar / line["key"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_clip_is_reported_and_replaced_by_rule(workers: int, folder: Path, tmp_path: Path) -> None:
    bad = {damage(folder, number) for number in (1, 6)}
    found = batches(everything(folder, tmp_path), tmp_path, workers)
    assert entries(tmp_path) == dict.fromkeys(bad, "damaged: its checksum is another")
    with served(folder) as url:
        assert all(torch.equal(a, b) for a, b in zip(found, batches(everything(url, tmp_path), tmp_path)))


def test_a_missing_shard_is_named_before_the_run_begins(folder: Path, tmp_path: Path) -> None:
    gone = sorted(folder.glob("*.tar"))[1]
    gone.unlink()
    with pytest.raises(DataError, match=rf"{gone.name} cannot be read: it is not there") as error:
        everything(folder, tmp_path)
    assert error.value.exit_code == 3
    with served(folder) as url, pytest.raises(DataError, match=f"{gone.name} cannot be read: it is not there"):
        everything(url, tmp_path)


def test_a_shard_that_is_cut_off_is_named_before_the_run_begins(folder: Path, tmp_path: Path) -> None:
    cut = sorted(folder.glob("*.tar"))[1]
    cut.write_bytes(cut.read_bytes()[:-600])
    for root in (folder, None):
        with served(folder) as url, pytest.raises(DataError, match=rf"{cut.name} is cut off: it should have \d"):
            everything(root or url, tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_vanishes_ends_the_run_and_no_other_clip_takes_its_place(
    workers: int, folder: Path, tmp_path: Path
) -> None:
    clips = everything(folder, tmp_path)
    for tar in folder.glob("*.tar"):
        tar.unlink()
    with pytest.raises(DataError, match=r"^\S+\.tar cannot be read: it is not there\. data\.root must hold [^\n]*$"):
        batches(clips, tmp_path, workers)
    assert entries(tmp_path) == {}


def rewritten(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


MANIFESTS: dict[str, Callable[[Path], object]] = {
    "no JSON": lambda folder: (folder / "manifest.json").write_text("{"),
    "deep JSON": lambda folder: (folder / "manifest.json").write_text("[" * 10**5),
    "a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "another format": lambda folder: rewritten(folder, format=2),
    "no shards": lambda folder: rewritten(folder, shards=[]),
    "a way out": lambda folder: rewritten(folder, shards=[["../shard.tar", 10, 1]]),
    "a URL": lambda folder: rewritten(folder, shards=[["http://host/shard.tar", 10, 1]]),
    "negative": lambda folder: rewritten(folder, shards=[["shard.tar", 10, -1]]),
    "words": lambda folder: rewritten(folder, shards=[["shard.tar", "many", "few"]]),
    "an index outside": lambda folder: rewritten(folder, index={"file": "/etc/passwd", "sha256": "0" * 64}),
    "an index of a strange name": lambda folder: rewritten(folder, index={"file": "x", "sha256": "../../x"}),
    "no index": lambda folder: rewritten(folder, index=None),
    "more clips than there are": lambda folder: rewritten(folder, shards=[["shard.tar", 10, 10**12]]),
    "another index": lambda folder: next(folder.glob("index-*")).write_bytes(bytes(ROW.itemsize * 11)),
    "a shorter index": lambda folder: next(folder.glob("index-*")).write_bytes(b""),
}


@pytest.mark.parametrize("make", MANIFESTS.values(), ids=MANIFESTS.keys())
def test_a_manifest_that_cannot_be_is_refused(make: Callable[[Path], object], folder: Path, tmp_path: Path) -> None:
    make(folder)
    with pytest.raises(DataError, match=r"is damaged|holds no shards"):
        everything(folder, tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", 2**63), ("offset", 2**64 - 1), ("bytes", 2**32 - 1), ("bytes", LARGEST_CLIP + 1), ("frames", 0),
        ("seconds", np.nan), ("seconds", -1),
    ],
)  # fmt: skip
def test_an_index_that_leads_astray_is_refused(field: str, value: Any, folder: Path, tmp_path: Path) -> None:
    rows = np.fromfile(next(folder.glob("index-*")), ROW)
    rows[field][3] = value
    next(folder.glob("index-*")).write_bytes(rows.tobytes())
    name = next(folder.glob("index-*")).name
    rewritten(folder, index={"file": name, "sha256": hashlib.sha256(rows.tobytes()).hexdigest()})
    with pytest.raises(DataError, match="cannot be where it says"):
        everything(folder, tmp_path)


def test_no_piece_of_a_shard_crashes_the_reader(made: Path, tmp_path: Path) -> None:
    clips, rng = everything(made, tmp_path), np.random.default_rng(0)
    piece = clips._piece(2)
    usable = 0
    for _ in range(150):
        damaged = bytearray(piece)
        for position in rng.integers(0, len(piece) if rng.random() < 0.5 else 1500, size=rng.integers(1, 9)):
            damaged[position] = int(rng.integers(256))
        try:
            video = unpack_clip(
                Path("clip"), bytes(damaged[: rng.integers(len(piece))] if rng.random() < 0.2 else damaged)
            )
            clips._piece = lambda _, video=video: pack_clip("x", ".mp4", video, {})  # type: ignore[method-assign]
            usable += clips.read(2, None).shape == (4, 32, 32, 3)
        except UnusableError:
            pass
    assert usable > 5


LIES: dict[str, dict[str, Any]] = {  # that would cost dearly, or crash what believes them
    "wide": {"width": 2**30}, "empty": {"width": 0}, "words": {"height": "x"}, "no time": {"time_base": 0.0},
    "not a number": {"time_base": float("nan")}, "flat": {"pixel_aspect": 1e-9}, "turned": {"rotation": 45},
    "no frames": {"pts": np.arange(0), "keyframes": np.arange(0)}, "falling": {"pts": np.array([9, 8, 7])},
    "mirrored": {"mirrored": "yes"}, "too many words": {"width": [64]},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_what_is_said_of_a_clip_is_not_believed(lie: dict[str, Any], made: Path, tmp_path: Path) -> None:
    clips = everything(made, tmp_path)
    video = unpack_clip(Path("clip"), clips._piece(2))
    assert np.array_equal(unpack_clip(Path("clip"), pack_clip("x", ".mp4", video, {})).pts, video.pts)
    for name, value in lie.items():
        object.__setattr__(video, name, value)
    with pytest.raises(UnusableError, match=r"damaged|too long|too small"):
        unpack_clip(Path("clip"), pack_clip("x", ".mp4", video, {}))


def test_a_description_that_unfolds_without_end_is_refused(made: Path, tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(2**28))
    with pytest.raises(ValueError, match="has no end"):
        VideoFile.unpack(Path("clip"), bomb)
    sparse = io.BytesIO()
    with tarfile.open(fileobj=sparse, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x.mp4")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
        info.size = 512
        tar.addfile(info, io.BytesIO(b"1\n0\n1\n".ljust(512, b"\0")))
    with pytest.raises(UnusableError):
        unpack_clip(Path("clip"), sparse.getvalue())


# Writing


def clip_of(made: Path) -> VideoFile:
    """A clip to write."""
    (tar, *_), (line, *_) = sorted(made.glob("*.tar")), lists(made)
    return unpack_clip(tar, tar.read_bytes()[line["offset"] :][: line["bytes"]])


def test_a_signal_at_any_line_costs_no_shard_that_is_complete(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_of(made)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for line in range(1, 1000):
        folder, left, finished = tmp_path / str(line), [line], 0
        folder.mkdir()

        def traced(frame: FrameType, event: str, _: Any, left: list[int] = left) -> Any:
            if not frame.f_code.co_filename.endswith("sharding/writer.py"):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    signal.raise_signal(signal.SIGTERM)
            return traced

        before = sys.gettrace()
        with (
            contextlib.suppress(StopRequested), StopSignals() as stop, stop.at_once(),
            closing(TarWriter(folder, "shard-000-00", 3 * len(clip.content or b""))) as writer,
        ):  # fmt: skip
            sys.settrace(traced)
            try:
                for video in range(3):
                    for part in range(2):
                        writer.add(clip, ".mp4", f"{video}.mp4", part, None)
                    writer.finish()
                    finished += 1
                writer.close()
            finally:
                sys.settrace(before)
        tars = {file.stem for file in folder.glob("*.tar")}
        assert tars == {file.stem for file in folder.glob("*.jsonl")}
        assert not list(folder.glob(".*"))
        names = [row["video"] for _, rows in listed(folder) for row in rows]
        assert names == [f"{video}.mp4" for video in range(len(names) // 2) for _ in range(2)]
        assert len(names) // 2 >= finished
        if left[0] > 0:
            break
    assert 30 < line < 999
    assert finished == 3


def test_a_disk_that_fails_while_a_shard_is_published_is_said(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = TarWriter(tmp_path, "a", 1)
    writer.add(clip_of(made), ".mp4", "a.mp4", 0, None)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="Input/output error"), closing(writer):
        writer.finish()


def test_a_clip_that_x264_refuses_is_reported_and_the_others_written(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is wider than 16,384 pixels."""
    add, calls = VideoWriter.add, itertools.count()

    def refusing(writer: VideoWriter, *arguments: Any) -> None:
        if next(calls) == 0:
            raise av.error.ExternalError(542398533, "Generic error in an external library")
        add(writer, *arguments)

    monkeypatch.setattr(VideoWriter, "add", refusing)
    assert ", 1 bad file (1 cannot be encoded)" in write_shards(tmp_path, videos)
    assert list(entries(tmp_path).values()) == ["cannot be encoded: Generic error in an external library"]
    assert len(lists(tmp_path)) == 11


@pytest.mark.parametrize("content", ["", "\xff", "[]\n", "{}\n", "{\n", '{"offset": 1', "null\n", "7\n"])
def test_a_list_that_is_damaged_is_named(content: str, folder: Path, videos: Path) -> None:
    file = min(folder.glob("shard-*.jsonl"))
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=f"{file.name} is damaged .*Remove it and {file.stem}.tar, and type the same"):
        write_shards(folder, videos)
    for damaged in (file, file.with_suffix(".tar")):  # what the message says
        damaged.unlink()
    assert "those of 3 were there already" in write_shards(folder, videos)


def test_a_list_without_its_shard_is_named(folder: Path, videos: Path) -> None:
    file = min(folder.glob("shard-*.tar"))
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name} is gone, but its list"):
        write_shards(folder, videos)


def test_what_processes_left_that_the_next_start_does_not_have_is_removed(folder: Path, videos: Path) -> None:
    (folder / ".shard-007-00.unfinished").touch()
    (folder / ".shard-005-01.unfinished").touch()
    with hold(folder, 5):  # by another command that still runs
        write_shards(folder, videos)
    assert [file.name for file in folder.glob(".shard-*")] == [".shard-005-01.unfinished"]


# Values


def test_values_out_of_range_are_named(made: Path, tmp_path: Path) -> None:
    for key, value in {"shuffle_shards": 0, "request_seconds": 0.0, "request_attempts": 0, "clip_frames": 0}.items():
        with pytest.raises(InvalidValueError, match=f"^{key} must be"):
            shards(made, tmp_path, **{key: value})
    with pytest.raises(InvalidValueError, match=r"^limits.stall_seconds must be more than 367\.5, "):
        shards(made, tmp_path, request_seconds=60.0, request_attempts=5, limits=LIMITS)


def test_enlarging_is_said(made: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="data.resolution=64 is more than the 32 pixels"):
        everything(made, tmp_path, resolution=64)


def test_a_folder_without_finished_shards_says_so(tmp_path: Path) -> None:
    tmp_path.joinpath("shards").mkdir()
    with pytest.raises(DataError, match=r"holds no shards: manifest.json is not there"):
        everything(tmp_path / "shards", tmp_path)
    write_index(tmp_path / "shards", {"format": 1, "writing": {"resolution": 32, "reencode": True}})
    with pytest.raises(DataError, match="holds no shards yet"):
        everything(tmp_path / "shards", tmp_path)
