"""A folder as data: which files are used, which are written down as bad, how they are split and cut into clips."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.conftest import LIMITS
from tests.unit.video.test_video_file import UNEVEN, Recording, number_shown
from vqgan.data import BadFiles, ClipDataset, Videos
from vqgan.data.videos import VideoFolder
from vqgan.errors import ConfigError, DataError, InvalidValueError, UnusableError
from vqgan.video.file import VideoFile, scan_video
from vqgan.video.times import clip_positions, clip_starts


@pytest.fixture(scope="session")
def good_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good file of 24 numbered frames at 24 frames a second."""
    return Recording(b_frames=2).write_numbers(tmp_path_factory.mktemp("good"), 24)


@pytest.fixture
def folder(tmp_path: Path, good_video: Path) -> Path:
    """A folder with three good videos."""
    root = tmp_path / "videos"
    root.mkdir()
    for number in range(3):
        shutil.copy(good_video, root / f"good{number}.mp4")
    return root


def videos(folder: Path, **changes: Any) -> Videos:
    """Data of a folder, with small numbers."""
    settings: dict[str, Any] = {
        "root": str(folder), "val_root": None, "val_fraction": 0.1, "validation_clips": 4, "resolution": 32,
        "clip_frames": 4, "stride": 1, "fps": None, "crop": "center", "flip": False, "batch_size": 2, "workers": 0,
        "max_bad_fraction": 0.0, "max_bad_files": 100, "limits": LIMITS,
    }  # fmt: skip
    return Videos(**{**settings, **changes})


def bad_files(root: Path, max_fraction: float = 0.0, max_files: int = 100) -> BadFiles:
    return BadFiles(root.parent / "bad_files.jsonl", max_fraction, max_files)


def entries(root: Path) -> list[tuple[str, str]]:
    """The ledger's (path, reason) rows."""
    ledger = root.parent / "bad_files.jsonl"
    lines = ledger.read_text(encoding="utf-8").split("\n")[:-1] if ledger.exists() else []
    return [(row["path"], row["reason"]) for row in map(json.loads, lines)]


def paths(dataset: ClipDataset) -> set[str]:
    return {dataset.path(index).name for index in range(len(dataset))}


# Bad files


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_without_end(path: Path) -> None:
    Recording().write_numbers(path.parent, 30).rename(path)  # the table of contents comes last
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])


def write_cut_at_the_start(path: Path) -> None:
    Recording(container_options={"movflags": "faststart"}).write_numbers(path.parent, 30).rename(path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 100])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (Path.touch, "empty file"),
    "text": (lambda path: path.write_text("not a video\n" * 50), "not a video|unreadable"),
    "random bytes": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)), "not a video|unreadable"),
    "zeros": (lambda path: path.write_bytes(bytes(50_000)), "not a video|unreadable"),
    "truncated, contents last": (write_without_end, "unreadable: its index (moov atom) is not found: it was cut off"),
    "truncated, contents first": (write_cut_at_the_start, "unreadable|no frames|too short"),
    "sound only": (write_sound, "no video stream"),
    "dangling link": (lambda path: path.symlink_to("nowhere.mp4"), "dangling link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "dangling link"),
    "folder": (Path.mkdir, "not a regular file"),
    "FIFO": (os.mkfifo, "not a regular file"),
    "link to a FIFO": (lambda p: (os.mkfifo(p.parent / "fifo"), p.symlink_to("fifo")), "not a regular file"),
    "picture": (lambda path: Image.new("RGB", (64, 48), "red").save(path, "jpeg"), "not a video"),
    "one frame": (lambda path: Recording().write_numbers(path.parent, 1).rename(path), "too short"),
    "one frame too few": (lambda path: Recording().write_numbers(path.parent, 3).rename(path), "too short"),
    "tiny": (lambda path: Recording().write_numbers(path.parent, 9, 12, 12).rename(path), "too small"),
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_reported_once_and_left_out(make: Callable[[Path], object], reason: str, folder: Path) -> None:
    bad = folder / "bad.mp4"
    make(bad)
    train, validation = videos(folder).datasets(bad_files(folder))
    assert paths(train) | paths(validation) == {"good0.mp4", "good1.mp4", "good2.mp4"}
    videos(folder).datasets(bad_files(folder))  # the run goes on
    ((path, said),) = entries(folder)
    assert path == str(bad)
    assert any(said.startswith(start) for start in reason.split("|")), said


@pytest.mark.parametrize("trial", range(3))
def test_no_damage_crashes_the_scan(trial: int, folder: Path, good_video: Path) -> None:
    rng = np.random.default_rng(trial)
    for suffix in ("mp4", "mkv", "ts", "avi", "flv", "mpg", "webm"):
        codec = {"mpg": "mpeg2video", "webm": "libvpx"}.get(suffix, "libx264")
        content = Recording(codec, suffix).write_numbers(folder.parent, 24).read_bytes()
        for number in range(12):
            damaged = bytearray(content)
            for position in rng.integers(len(content), size=30):
                damaged[position] = int(rng.integers(256))
            (folder / f"damaged{number}.{suffix}").write_bytes(damaged)
    train, _ = videos(folder).datasets(bad_files(folder))
    for index in range(len(train)):
        try:
            assert train[index].shape == (4, 32, 32, 3)
        except UnusableError:
            assert train.path(index).name.startswith("damaged")


def test_a_folder_named_like_a_video_is_entered(folder: Path, good_video: Path) -> None:
    (folder / "sub.mp4").mkdir()
    shutil.copy(good_video, folder / "sub.mp4" / "inside.MP4")
    train, validation = videos(folder).datasets(bad_files(folder))
    assert "inside.MP4" in paths(train) | paths(validation)
    assert entries(folder) == []


@pytest.mark.parametrize(
    "name",
    ["ünïcødé 影片 🎬", "with spaces ", "it's \"quoted\"", "%d %05d %s", "#1?x=2&y", "a:b", "http:", "-i", "$HOME `ls`",
     "back\\slash", "new\nline", "\u2028separated", "concat:a|b", os.fsdecode(b"not-utf8-\xe9\xff")],
)  # fmt: skip
def test_any_name_of_file_and_folder_is_read(name: str, tmp_path: Path, good_video: Path) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(good_video, root / f"{name}.mp4")
    (root / f"{name}-empty.mp4").touch()
    train, _ = videos(root).datasets(bad_files(root))
    assert train[0].shape == (4, 32, 32, 3)
    assert paths(train) == {f"{name}.mp4"}
    assert entries(root) == [(str(root / f"{name}-empty.mp4"), "empty file")]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A local server that a playlist could lead to."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    yield server
    server.close()


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "HLS to the network": (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/x.ts\n#EXT-X-ENDLIST\n"
    ),
    "concat": "ffconcat version 1.0\nfile '{name}'\n",
    "concat to the network": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/x.mp4'\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="x"><Period>'
    '<BaseURL>http://127.0.0.1:{port}/</BaseURL><AdaptationSet mimeType="video/mp4"><Representation id="1" '
    'bandwidth="1"><SegmentList duration="1"><SegmentURL media="x.mp4"/></SegmentList></Representation>'
    "</AdaptationSet></Period></MPD>",
}  # fmt: skip


@pytest.mark.timeout(30)
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
@pytest.mark.parametrize("playlist", PLAYLISTS.values(), ids=PLAYLISTS.keys())
def test_a_playlist_is_refused_and_opens_nothing(
    playlist: str, suffix: str, folder: Path, good_video: Path, listener: socket.socket
) -> None:
    target = folder / "hidden"  # not a video by its name, so only the playlist could lead to it
    target.mkdir()
    shutil.copy(good_video, target / "segment.bin")
    os.mkfifo(target / "fifo")
    for number, name in enumerate(("hidden/segment.bin", "hidden/fifo")):  # opening the FIFO would never end
        text = playlist.format(target=folder / name, name=name, port=listener.getsockname()[1])
        (folder / f"playlist{number}.{suffix}").write_text(text)
    train, validation = videos(folder).datasets(bad_files(folder))
    assert all(name.startswith("good") for name in paths(train) | paths(validation))
    assert [reason.partition(":")[0] for _, reason in entries(folder)] in (["not a video"] * 2, ["unreadable"] * 2)
    with pytest.raises(TimeoutError):
        listener.accept()


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux([*sound.encode(), *cover.encode()])
    with pytest.raises(UnusableError, match="no video stream"):
        scan_video(path)


def test_a_truncated_but_usable_file_is_used_and_reported(folder: Path) -> None:
    path = Recording(container_options={"movflags": "faststart"}).write_numbers(folder, 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    train, validation = videos(folder).datasets(bad_files(folder))
    assert "video.mp4" in paths(train) | paths(validation)
    ((_, reason),) = entries(folder)
    assert reason.startswith("truncated")


def test_an_unreadable_file_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(path: Path) -> tuple[VideoFile, str | None]:
        if path.name == "good1.mp4":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scan_video(path)

    monkeypatch.setattr(Videos, "kind", replace(Videos.kind, scan=scan))
    videos(folder).datasets(bad_files(folder))
    assert entries(folder) == [(str(folder / "good1.mp4"), "unreadable: Permission denied")]


# The budget


@pytest.mark.parametrize(
    ("bad", "max_files", "max_fraction", "ends"),
    [
        (2, 2, 0.0, False),
        (3, 2, 0.0, True),
        (3, 0, 0.5, False),
        (4, 0, 0.5, True),
        (1, 0, 0.0, True),
        (9, 0, 0.75, False),
    ],
)
def test_the_budget_is_the_larger_of_number_and_share(
    bad: int, max_files: int, max_fraction: float, ends: bool, folder: Path
) -> None:
    for number in range(bad):
        (folder / f"bad{number}.mp4").touch()
    ledger = bad_files(folder, max_fraction, max_files)
    if not ends:
        videos(folder).datasets(ledger)
        return
    with pytest.raises(DataError, match=rf"{bad} of {bad + 3} files cannot be used \({bad} empty file\)") as error:
        videos(folder).datasets(ledger)
    assert error.value.exit_code == 3
    assert "data.max_bad_fraction" in str(error.value)
    assert len(entries(folder)) == bad


def test_files_that_were_mended_no_longer_count(folder: Path, good_video: Path) -> None:
    for number in range(2):
        (folder / f"bad{number}.mp4").touch()
    with pytest.raises(DataError):
        videos(folder).datasets(bad_files(folder, max_files=1))
    shutil.copy(good_video, folder / "bad0.mp4")
    train, validation = videos(folder).datasets(bad_files(folder, max_files=1))
    assert "bad0.mp4" in paths(train) | paths(validation)


def test_a_ledger_cut_off_by_a_kill_is_continued(folder: Path) -> None:
    (folder / "bad.mp4").touch()
    videos(folder).datasets(bad_files(folder))
    with (folder.parent / "bad_files.jsonl").open("a") as ledger:
        ledger.write('{"path": "half')
    (folder / "another.mp4").touch()
    videos(folder).datasets(bad_files(folder))
    lines = (folder.parent / "bad_files.jsonl").read_text().split("\n")
    assert [line.count("empty file") for line in lines] == [1, 0, 1, 0]
    assert json.loads(lines[2])["path"] == str(folder / "another.mp4")


def test_a_damaged_ledger_is_continued(folder: Path) -> None:
    (folder / "bad.mp4").touch()
    damaged = b'{"path": "\xff"}\n[1]\n7\n{"path": 1, "reason": null}\n' + b"[" * 10**5 + b"\nhalf"
    (folder.parent / "bad_files.jsonl").write_bytes(damaged)
    videos(folder).datasets(bad_files(folder))
    content = (folder.parent / "bad_files.jsonl").read_bytes()
    assert content.startswith(damaged + b"\n")
    assert json.loads(content.splitlines()[-1])["path"] == str(folder / "bad.mp4")


def test_clips_that_fail_later_count_too(folder: Path) -> None:
    ledger = bad_files(folder, max_files=1)
    videos(folder).datasets(ledger)
    ledger.add(folder / "good0.mp4", "damaged: 1 frames cannot be decoded")
    ledger.add(folder / "good0.mp4", "damaged: 2 frames cannot be decoded")
    assert len(entries(folder)) == 1
    with pytest.raises(DataError, match="2 of 3 files cannot be used"):
        ledger.add(folder / "good1.mp4", "damaged: 1 frames cannot be decoded")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("key", ["root", "val_root"])
def test_folders_without_data_are_named(key: str, folder: Path, tmp_path: Path) -> None:
    def load(other: Path) -> None:
        videos(folder, **{key: str(other)}).datasets(bad_files(folder))

    other = tmp_path / "other"
    with pytest.raises(DataError, match=f"data.{key}={other} is not a folder"):
        load(other)
    other.mkdir()
    (other / "notes.txt").write_text("text")
    (other / ".hidden.mp4").touch()
    with pytest.raises(DataError, match=f"data.{key}={other} holds no file of a known kind .*mp4.* Name another"):
        load(other)
    (other / "clips-00000.tar").touch()
    with pytest.raises(DataError, match="Its tar files are for data=shards"):
        load(other)
    for number in range(3):
        (other / f"empty{number}.mp4").touch()
    Recording().write_numbers(other, 2)
    with pytest.raises(DataError, match=f"None of the 4 files below data.{key}={other} .*3 empty file, 1 too short"):
        load(other)


def test_hidden_files_are_not_seen_and_links_are_followed(folder: Path, good_video: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(good_video, elsewhere / "linked.mp4")
    shutil.copy(good_video, elsewhere / ".hidden.mp4")
    (folder / "link").symlink_to(elsewhere)
    (folder / "file-link.mp4").symlink_to(good_video)
    (folder / "loop").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder)
    train, validation = videos(folder).datasets(bad_files(folder))
    found = sorted([*paths(train), *paths(validation)])
    assert found == ["file-link.mp4", "good0.mp4", "good1.mp4", "good2.mp4", "linked.mp4"]


def test_the_home_folder_can_be_written_as_tilde(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    train, _ = videos(Path("~") / folder.name).datasets(bad_files(folder))
    assert len(paths(train)) == 2


# The split


@pytest.fixture
def many(tmp_path: Path, good_video: Path) -> Path:
    """40 files in two folders, by links."""
    root = tmp_path / "many"
    for number in range(40):
        file = root / f"part{number % 2}" / f"{number}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(good_video)
    return root


def split(root: Path, **changes: Any) -> tuple[set[str], set[str]]:
    train, validation = videos(root, **changes).datasets(bad_files(root))
    return paths(train), paths(validation)


def below(root: Path, *folders: str) -> set[str]:
    return {path.name for folder in folders for path in (root / folder).glob("*.mp4")}


@pytest.mark.parametrize("linked", [False, True])
def test_files_to_validate_on_are_not_trained_on(many: Path, linked: bool, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(many / "part1")
    val_root = tmp_path / "link" if linked else many / "part1"
    with pytest.warns(UserWarning, match="lies in data.root=.* for validation alone.*allow_other_data=true"):
        train, validation = split(many, val_root=str(val_root))
    assert (train, validation) == (below(many, "part0"), below(many, "part1"))


def test_a_folder_within_the_one_to_validate_on_is_trained_on(many: Path) -> None:
    with pytest.warns(UserWarning, match="^data.root=.* lies in data.val_root=.* for training alone"):
        train, validation = split(many / "part0", val_root=str(many))
    assert (train, validation) == (below(many, "part0"), below(many, "part1"))
    (many / "part0").rename(many / "part1" / "part0")
    with pytest.raises(DataError, match=f"^data.root={many} holds no file .* outside of {many / 'part1'}"):
        split(many, val_root=str(many / "part1"))


def test_a_link_to_the_folder_to_validate_on_is_not_followed(many: Path, good_video: Path, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    shutil.copy(good_video, tmp_path / "others" / "other.mp4")
    (many / "link").symlink_to(tmp_path / "others")
    train, validation = split(many, val_root=str(tmp_path / "others"))
    assert (train, validation) == (below(many, "part0", "part1"), {"other.mp4"})


@pytest.mark.parametrize("spelled", ["{}", "{}/", "{}/part0/..", "link"])
def test_the_same_folder_for_both_is_refused(many: Path, spelled: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(many)
    with pytest.raises(ConfigError, match=r"^data.root=.* and data.val_root=.* hold the same") as error:
        split(many, val_root=str(tmp_path / "link") if spelled == "link" else spelled.format(many))
    assert error.value.exit_code == 2


def test_files_are_on_one_side_each_and_stay_there(many: Path, good_video: Path) -> None:
    train, validation = split(many, val_fraction=0.25)
    assert not train & validation
    assert len(train | validation) == 40
    assert 4 <= len(validation) <= 16
    for number in range(40, 60):
        (many / f"{number}.mp4").symlink_to(good_video)
    train_of_more, validation_of_more = split(many, val_fraction=0.25)
    assert train <= train_of_more
    assert validation <= validation_of_more


def test_a_split_does_not_depend_on_where_the_folder_is(many: Path) -> None:
    before = split(many)
    moved = many.rename(many.parent / "moved")
    assert split(moved) == before


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_side_is_ever_empty(count: int, fraction: float, folder: Path) -> None:
    for number in range(count, 3):
        (folder / f"good{number}.mp4").unlink()
    train, validation = split(folder, val_fraction=fraction)
    assert train
    assert validation
    assert count == 1 or not train & validation


def test_a_side_whose_files_are_all_bad_gets_a_good_one(folder: Path) -> None:
    _, validation = split(folder)
    for name in validation:
        (folder / name).write_bytes(b"")
    train, others = split(folder)
    assert len(train) == len(others) == 1
    assert not (train | others) & validation
    assert train != others


def test_a_folder_for_validation_takes_nothing_from_training(folder: Path, tmp_path: Path, good_video: Path) -> None:
    val_root = tmp_path / "val"
    val_root.mkdir()
    shutil.copy(good_video, val_root / "validation.mp4")
    assert split(folder, val_root=str(val_root)) == ({"good0.mp4", "good1.mp4", "good2.mp4"}, {"validation.mp4"})


# Clips and their sampling


def indexed(times: np.ndarray) -> VideoFile:
    """The index of an imagined video with frames at `times` in seconds."""
    pts = np.round(np.asarray(times) * 90_000).astype(np.int64)
    return VideoFile(Path("imagined"), pts, pts[:1], 1 / 90_000, 64, 48, 1.0, 0, False)


def constant(count: int, rate: float) -> VideoFile:
    return indexed(np.arange(count) / rate)


@pytest.mark.parametrize(
    ("video", "clip_frames", "stride", "fps", "clips"),
    [
        (constant(4, 24), 4, 1, None, 1),
        (constant(7, 24), 4, 1, None, 1),
        (constant(8, 24), 4, 1, None, 2),
        (constant(10, 24), 4, 3, None, 1),
        (constant(20, 24), 4, 3, None, 2),
        (constant(1, 24), 1, 1, None, 1),
        (constant(1, 24), 1, 5, None, 1),
        (constant(9, 24), 1, 1, None, 9),
        (constant(4, 24), 4, None, 24.0, 1),
        (constant(8, 24), 4, None, 24.0, 2),
        (constant(19, 24), 4, None, 4.0, 1),
        (constant(1, 24), 1, None, 24.0, 1),
        (constant(9, 24), 1, None, 24.0, 9),
        (constant(8, 24), 4, None, 48.0, 4),
        (constant(8, 24), 4, None, 240.0, 8),
        (constant(300, 30000 / 1001), 4, None, 30000 / 1001, 75),
    ],
)
def test_a_video_is_cut_into_all_clips_it_holds(
    video: VideoFile, clip_frames: int, stride: int | None, fps: float | None, clips: int
) -> None:
    starts = clip_starts(video, clip_frames, stride, fps)
    assert abs(len(starts) - clips) <= (0 if fps is None or fps <= 30 else 1)
    assert (starts[:, 0] <= starts[:, 1]).all()
    assert (starts[1:, 0] > starts[:-1, 1]).all()
    assert starts[0, 0] == 0


@pytest.mark.parametrize(
    ("video", "clip_frames", "stride", "fps"),
    [
        (constant(3, 24), 4, 1, None),
        (constant(9, 24), 4, 3, None),
        (constant(3, 24), 4, None, 24.0),
        (constant(18, 24), 4, None, 4.0),
        (constant(1, 24), 2, None, 100.0),
    ],
)
def test_a_video_shorter_than_a_clip_is_refused(
    video: VideoFile, clip_frames: int, stride: int | None, fps: float | None
) -> None:
    with pytest.raises(UnusableError, match="too short"):
        clip_starts(video, clip_frames, stride, fps)


def shown_numbers(
    path: Path, clip_frames: int, stride: int | None, fps: float | None, seed: int | None
) -> list[list[int]]:
    """For each clip of a numbered video the numbers of its frames."""
    dataset = VideoFolder([scan_video(path)[0]], 48, clip_frames, stride, fps, False, False)
    rng = None if seed is None else np.random.default_rng(seed)
    return [[number_shown(f) for f in dataset.read(index, rng).numpy()] for index in range(len(dataset))]


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_strided_clips_hold_every_stride_th_frame_and_do_not_leave_the_video(
    stride: int, seed: int | None, good_video: Path
) -> None:
    clips = shown_numbers(good_video, 4, stride, None, seed)
    for clip in clips:
        assert np.diff(clip).tolist() == [stride] * 3
        assert 0 <= clip[0] <= clip[-1] <= 23
    assert len(clips) == max(1, 24 // (3 * stride + 1))


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("fps", [8.0, 12.0, 24.0, 48.0])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_frame_rate_is_met_whatever_the_container(suffix: str, fps: float, seed: int | None, tmp_path: Path) -> None:
    path = Recording(suffix=suffix, b_frames=2).write_numbers(tmp_path, 48)
    for clip in shown_numbers(path, 4, None, fps, seed):
        offsets = np.array(clip) - clip[0]
        assert offsets.tolist() == [int(step * 24 / fps) for step in range(4)]


@pytest.mark.parametrize("seed", [None, *range(4)])
@pytest.mark.parametrize("fps", [5.0, 20.0, 60.0])
def test_with_uneven_times_the_frame_on_screen_is_taken(fps: float, seed: int | None, tmp_path: Path) -> None:
    path = Recording(suffix="mkv", times=UNEVEN).write_numbers(tmp_path, len(UNEVEN))
    for clip in shown_numbers(path, 4, None, fps, seed):
        wanted = UNEVEN[clip[0]] + 1000 * np.arange(4) / fps
        for number, time in zip(clip, wanted):
            assert UNEVEN[number] <= time + 1
            assert number == len(UNEVEN) - 1 or time < UNEVEN[number + 1] + 1


@pytest.mark.parametrize(("stride", "fps"), [(1, None), (3, None), (1, 5.0)])
def test_when_the_frames_of_a_clip_are_shown_is_known(stride: int, fps: float | None, tmp_path: Path) -> None:
    path = Recording(suffix="mkv", times=UNEVEN).write_numbers(tmp_path, len(UNEVEN))
    dataset = VideoFolder([scan_video(path)[0]], 48, 4, stride, fps, False, False)
    for index, numbers in enumerate(shown_numbers(path, 4, stride, fps, None)):
        times = [UNEVEN[number] / 1000 for number in numbers]
        assert dataset.seconds(index) == pytest.approx(times, abs=1e-3)


def test_every_start_gives_a_whole_clip(tmp_path: Path) -> None:
    path = Recording(times=UNEVEN, b_frames=2).write_numbers(tmp_path, len(UNEVEN))
    video, _ = scan_video(path)
    for stride, fps in [(1, None), (3, None), (None, 7.0), (None, 30.0)]:
        for start in {int(s) for first, last in clip_starts(video, 4, stride, fps) for s in range(first, last + 1)}:
            positions = clip_positions(video, start, 4, stride, fps)
            assert positions[0] == start
            assert (np.diff(positions) >= 0).all()
            assert positions[-1] < len(UNEVEN)
            span = video.seconds[start] + (0 if fps is None else 3 / fps)
            assert span <= video.seconds[-1] + 2e-3


def test_validation_clips_are_the_same_each_time_and_training_clips_start_anywhere(good_video: Path) -> None:
    assert shown_numbers(good_video, 4, 1, None, None) == shown_numbers(good_video, 4, 1, None, None)
    starts = {shown_numbers(good_video, 4, 1, None, seed)[1][0] for seed in range(12)}
    assert starts <= set(range(4, 8))
    assert len(starts) > 2


def test_clips_know_their_file_and_refuse_others(folder: Path) -> None:
    train, _ = videos(folder).datasets(bad_files(folder))
    assert len(train) == 12
    assert [train.path(index).name for index in (0, 5, 6, 11)] == [sorted(paths(train))[i] for i in (0, 0, 1, 1)]
    for index in (-1, 12):
        with pytest.raises(IndexError):
            train[index]


@pytest.mark.parametrize(
    ("key", "value"),
    [("val_fraction", 0.0), ("val_fraction", 1.0), ("validation_clips", 0), ("resolution", 15), ("batch_size", 0),
     ("workers", -1), ("max_bad_fraction", 1.5), ("max_bad_files", -1), ("clip_frames", 0), ("stride", 0),
     ("stride", None)],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_their_key(key: str, value: object, folder: Path) -> None:
    with pytest.raises(InvalidValueError, match=f"^{key} must be"):
        videos(folder, **{key: value})


@pytest.mark.parametrize("fps", [0.0, -1.0])
def test_a_frame_rate_is_positive(fps: float, folder: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"^fps must be positive"):
        videos(folder, stride=None, fps=fps)


def test_times_of_thousandths_are_exact_enough() -> None:
    rounded = indexed(np.round(np.arange(100) * 1001 / 30000, 3))
    assert len(clip_starts(rounded, 4, None, 30000 / 1001)) == 25


def test_a_rate_that_no_video_has_is_said(folder: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"data.fps=500 is more than any of the videos has \(24\): clips repeat frames"
    ):
        videos(folder, stride=None, fps=500.0).datasets(bad_files(folder))
    videos(folder, stride=None, fps=24.0).datasets(bad_files(folder))
