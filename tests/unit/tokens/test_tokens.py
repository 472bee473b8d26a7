"""Token folders: what was finished is there, whatever happened while it was written, and nothing else is."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import pickle
import shutil
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import vqgan.tokens
from vqgan.errors import ConfigError, DataError, StorageError
from vqgan.files.writing import replace_text
from vqgan.tokens.folder import Tokens
from vqgan.tokens.records import pack_times, smallest_type, unpack_times
from vqgan.tokens.writer import ShardWriter, repair

SIZE = 300  # of the codebook
DTYPE = smallest_type(SIZE)


def encode_batch(number: int) -> np.ndarray:
    """The codes of video `number`: 3 to 6 frames of 2×3."""
    return np.random.default_rng(number).integers(SIZE, size=(3 + number % 4, 2, 3)).astype(DTYPE)


def write_manifest(folder: Path, **values: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "codebook_size": SIZE, **values}))


def add(writer: ShardWriter, number: int) -> None:
    codes = encode_batch(number)
    writer.add(codes[:2])
    writer.add(codes[2:])
    writer.finish(f"videos/{number}.mp4", 0.04, np.arange(len(codes)) * 2, 64, 48)


def make(folder: Path, count: int = 6, largest: int = 100) -> Tokens:
    write_manifest(folder)
    writer = ShardWriter(folder, "shard-000-00", DTYPE, largest)
    for number in range(count):
        add(writer, number)
    writer.close()
    return vqgan.tokens.open(folder)


@pytest.mark.parametrize(("size", "expected"), [(2, "<u1"), (256, "<u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_codes_are_the_smallest_integers_that_hold_them(size: int, expected: str) -> None:
    assert smallest_type(size) == np.dtype(expected)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    tokens = make(tmp_path / "tokens")
    assert tokens.paths == [f"videos/{n}.mp4" for n in range(6)]
    assert len(list((tmp_path / "tokens").glob("*.bin"))) == 3, "of about 100 bytes each"
    for number, video in enumerate(tokens):
        np.testing.assert_array_equal(video.codes, encode_batch(number))
        assert video.codes.dtype == DTYPE
        assert not video.codes.flags.writeable
        assert video.fps == pytest.approx(12.5)
        np.testing.assert_allclose(video.seconds, np.arange(len(video.codes)) * 0.08)
    assert [video.path for video in tokens[1:3]] == ["videos/1.mp4", "videos/2.mp4"]
    assert tokens[-1].path == "videos/5.mp4"
    with pytest.raises(IndexError):
        tokens[6]
    tokens.verify()


def test_a_kill_at_any_byte_loses_only_what_was_not_finished(tmp_path: Path) -> None:
    make(tmp_path / "whole", 3, 10**6)
    shard, listed = (tmp_path / "whole" / f"shard-000-00-00000.{suffix}" for suffix in ("bin", "jsonl"))
    content, lines = shard.read_bytes(), listed.read_bytes()
    ends = np.cumsum([encode_batch(n).nbytes for n in range(3)]).tolist()
    for length in range(len(content) + 1):
        # Lines are written after the bytes that they speak of: the last may be cut anywhere.
        finished = sum(end <= length for end in ends)
        whole_lines = b"".join(lines.splitlines(keepends=True)[:finished])
        for cut in (0, len(whole_lines) // 2, len(whole_lines)):
            folder = tmp_path / "killed"
            shutil.rmtree(folder, ignore_errors=True)
            write_manifest(folder)
            (folder / shard.name).write_bytes(content[:length])
            (folder / listed.name).write_bytes(whole_lines[:cut])
            survived = whole_lines[:cut].count(b"\n")
            before = vqgan.tokens.open(folder)
            assert len(before) == survived
            before.verify()
            writer = ShardWriter(folder, "shard-000-00", DTYPE, 10**6)
            for number in range(survived, 3):
                add(writer, number)
            writer.close()
            assert (folder / shard.name).read_bytes() == content
            assert (folder / listed.name).read_bytes() == lines


class Ended(Exception):
    """What ends a command: a signal, or a disk that is full."""


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_ends_a_command_anywhere_cuts_off_nothing_that_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python calls a signal's handler between any two lines: here each line of the writer is the last one once."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for line in range(1000):
        folder, left = tmp_path / str(line), [line]
        make(folder, 2, 10**6)

        def traced(frame: FrameType, event: str, _: Any, left: list[int] = left) -> Any:
            if not frame.f_code.co_filename.endswith("tokens/writer.py"):
                return None
            if event == "line":
                left[0] -= 1
                if left[0] == 0:
                    raise Ended
            return traced

        before = sys.gettrace()
        with (
            contextlib.suppress(Ended),
            closing(ShardWriter(folder, "shard-000-00", DTYPE, encode_batch(0).nbytes)) as writer,
        ):
            sys.settrace(traced)
            try:
                for number in (2, 3):
                    add(writer, number)
                writer.close()
            finally:
                sys.settrace(before)
        tokens = vqgan.tokens.open(folder)
        assert tokens.paths[:2] == ["videos/0.mp4", "videos/1.mp4"]
        tokens.verify()
        if left[0] > 0:
            break
    assert 50 < line < 999
    assert len(tokens) == 4


def test_a_disk_that_fails_cuts_off_nothing_that_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tokens"
    make(folder, 2, 10**6)
    calls = itertools.count(1)

    def failing(file: int, sync: Any = os.fsync) -> None:
        if next(calls) == 4:  # the list of the second video
            raise OSError(errno.EIO, "Input/output error")
        sync(file)

    monkeypatch.setattr(os, "fsync", failing)
    writer = ShardWriter(folder, "shard-000-00", DTYPE, 10**6)
    add(writer, 2)
    with pytest.raises(StorageError, match="Input/output error"), closing(writer):
        add(writer, 3)
    tokens = vqgan.tokens.open(folder)
    assert len(tokens) == 4
    tokens.verify()


def test_what_a_shard_lacks_of_its_list_is_told_and_written_again(tmp_path: Path) -> None:
    """Version 0.1 could be stopped between a video's line and the end of its bytes, and cut them off."""
    make(tmp_path, 3, 10**6)
    shard, listed = (tmp_path / f"shard-000-00-00000.{suffix}" for suffix in ("bin", "jsonl"))
    content, lines = shard.read_bytes(), listed.read_bytes()
    os.truncate(shard, len(content) - 1)
    with pytest.warns(UserWarning, match=r"shard-000-00-00000.bin is cut off: it lacks 1 video .*videos/2.mp4"):
        writer = ShardWriter(tmp_path, "shard-000-00", DTYPE, 10**6)
    assert vqgan.tokens.open(tmp_path).paths == ["videos/0.mp4", "videos/1.mp4"]
    add(writer, 2)
    writer.close()
    assert (shard.read_bytes(), listed.read_bytes()) == (content, lines)
    shard.unlink()
    with pytest.warns(UserWarning, match="it lacks 3 videos"):
        assert repair(shard, DTYPE.itemsize) == 0
    assert len(vqgan.tokens.open(tmp_path)) == 0


def test_a_video_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    writer = ShardWriter(tmp_path, "shard-000-00", DTYPE, 10**6)
    add(writer, 0)
    writer.add(encode_batch(1))
    writer.give_up()
    add(writer, 2)
    writer.add(encode_batch(3))
    writer.close()
    tokens = vqgan.tokens.open(tmp_path)
    assert tokens.paths == ["videos/0.mp4", "videos/2.mp4"]
    np.testing.assert_array_equal(tokens[1].codes, encode_batch(2))
    assert (tmp_path / "shard-000-00-00000.bin").stat().st_size == encode_batch(0).nbytes + encode_batch(2).nbytes


def test_a_folder_that_is_still_written_shows_what_is_finished(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    writer = ShardWriter(tmp_path, "shard-000-00", DTYPE, 10**6)
    assert len(vqgan.tokens.open(tmp_path)) == 0
    add(writer, 0)
    writer.add(encode_batch(1))
    assert vqgan.tokens.open(tmp_path).paths == ["videos/0.mp4"]
    writer.close()


def test_clips_and_sequences_cover_the_videos(tmp_path: Path) -> None:
    tokens = make(tmp_path)
    clips = tokens.clips(2)
    expected = [encode_batch(n)[start : start + 2] for n in range(6) for start in range(0, len(encode_batch(n)) - 1, 2)]
    assert len(clips) == len(expected)
    for clip, codes in zip((clips[i] for i in range(len(clips))), expected):
        assert clip.dtype == torch.int64
        np.testing.assert_array_equal(clip, codes)
    np.testing.assert_array_equal(tokens.clips(2, stride=2)[0], encode_batch(0)[::2][:2])
    sequences = tokens.sequences(7)
    flat = [encode_batch(n).reshape(-1) for n in range(6)]
    runs = [run for codes in flat for run in codes[: len(codes) // 7 * 7].reshape(-1, 7)]
    assert len(sequences) == len(runs)
    for index, run in enumerate(runs):
        np.testing.assert_array_equal(sequences[index], run)
    np.testing.assert_array_equal(sequences[-1], runs[-1])
    with pytest.raises(IndexError):
        sequences[len(runs)]
    assert len(tokens.clips(7)) == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where there is one core
def test_worker_processes_read_the_same(tmp_path: Path) -> None:
    sequences = make(tmp_path).sequences(6)
    batches = [list(DataLoader(sequences, 4, num_workers=workers)) for workers in (0, 2)]
    for a, b in zip(*batches):
        assert torch.equal(a, b)
    assert len(pickle.dumps(sequences)) < 10_000, "the shards are not copied"


def test_a_hugging_face_data_set(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    found = make(tmp_path / "tokens").to_datasets(cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["path", "fps", "frames", "width", "height", "codes"]
    for number, row in enumerate(found):
        assert row["path"] == f"videos/{number}.mp4"
        np.testing.assert_array_equal(np.array(row["codes"]), encode_batch(number))
    assert found.features["codes"].feature.feature.feature.dtype == "uint16"


def test_times_come_back() -> None:
    times = np.cumsum([0, 40, 41, 1, 2**40, 3])
    np.testing.assert_array_equal(unpack_times(pack_times(times), 6), times)
    for count in (5, 7):
        with pytest.raises(ValueError, match="times"):
            unpack_times(pack_times(times), count)


def test_codes_that_changed_are_noticed(tmp_path: Path) -> None:
    tokens = make(tmp_path, largest=10**6)
    shard = tmp_path / "shard-000-00-00000.bin"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        vqgan.tokens.open(tmp_path).verify()
    shard.write_bytes(content[:-1])
    with pytest.raises(DataError, match="cut off"):
        vqgan.tokens.open(tmp_path)[-1]
    shard.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        vqgan.tokens.open(tmp_path)[0]
    os.mkfifo(shard)
    with pytest.raises(DataError, match=r"cannot be read: .* is no regular file"):
        vqgan.tokens.open(tmp_path)[0]
    assert len(tokens) == 6


LINE = {
    "path": "a.mp4", "offset": 0, "shape": [3, 2, 3], "time_base": 0.04, "times": pack_times(np.arange(3)), "width": 64,
    "height": 48, "fps": 25.0, "crc32": 0,
}  # fmt: skip
HOSTILE: dict[str, dict[str, Any]] = {
    "a path outside": {"path": "../../a.mp4"},
    "an absolute path": {"path": "/tmp/a.mp4"},
    "no path": {"path": ""},
    "a path that is a number": {"path": 1},
    "an offset before the file": {"offset": -1},
    "no frames": {"shape": [0, 2, 3]},
    "negative frames": {"shape": [-3, -2, 3]},
    "two sides": {"shape": [3, 2]},
    "sides that are text": {"shape": ["3", "2", "3"]},
    "times of other frames": {"times": pack_times(np.arange(4))},
    "times that are none": {"times": "zz"},
    "a time base of zero": {"time_base": 0.0},
    "no time base": {"time_base": float("nan")},
    "an endless time base": {"time_base": float("inf")},
    "more frames than there are numbers": {"shape": [2**62, 2, 3]},
    "a size that is text": {"file_bytes": "1"},
    "an unknown key": {"more": 1},
    "no width": {"width": 0},
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_line_that_makes_no_sense_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    write_manifest(tmp_path)
    (tmp_path / "shard-000-00-00000.bin").write_bytes(bytes(36))
    listed = tmp_path / "shard-000-00-00000.jsonl"
    listed.write_text(json.dumps(LINE) + "\n")
    assert len(vqgan.tokens.open(tmp_path)) == 1
    listed.write_text(json.dumps({**LINE, **values}) + "\n")
    with pytest.raises(DataError, match="damaged"):
        vqgan.tokens.open(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\n", b"[]\n", b'""\n', b"null\n", b"7\n", b"\n", b"[" * 10**5 + b"\n"])
def test_a_list_that_is_damaged_is_named(content: bytes, tmp_path: Path) -> None:
    write_manifest(tmp_path)
    (tmp_path / "shard-000-00-00000.bin").touch()
    (tmp_path / "shard-000-00-00000.jsonl").write_bytes(content)
    for look in (vqgan.tokens.open, lambda folder: ShardWriter(folder, "shard-000-00", DTYPE, 10**6)):
        with pytest.raises(DataError, match=r"shard-000-00-00000.jsonl is damaged .*remove it and its .bin"):
            look(tmp_path)


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    make(tmp_path)
    listed, manifest = tmp_path / "shard-000-00-00000.jsonl", tmp_path / "manifest.json"
    os.truncate(listed, 2**34)  # zeros, which take no room on the disk
    with pytest.raises(DataError, match=r"shard-000-00-00000.jsonl is damaged \(it has a line of more than 67,108,864"):
        vqgan.tokens.open(tmp_path)
    os.truncate(manifest, 2**34)
    with pytest.raises(ConfigError, match=r"no folder of tokens .*manifest.json has 17,179,869,184 bytes, more than"):
        vqgan.tokens.open(tmp_path)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(ConfigError, match=r"no folder of tokens .*manifest.json is no regular file"):
        vqgan.tokens.open(tmp_path)


def test_an_offset_beyond_the_file_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    (tmp_path / "shard-000-00-00000.bin").write_bytes(bytes(36))
    for values in ({"offset": 2**62}, {"shape": [3, 2**40, 2**40]}, {"offset": 2}):
        (tmp_path / "shard-000-00-00000.jsonl").write_text(json.dumps({**LINE, **values}) + "\n")
        with pytest.raises(DataError, match="cut off"):
            vqgan.tokens.open(tmp_path)[0]


@pytest.mark.parametrize("values", [{"format": 3}, *({"codebook_size": size} for size in (0, "x", None, 2**40))])
def test_a_manifest_of_another_kind_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    write_manifest(tmp_path, **values)
    with pytest.raises(ConfigError, match="no folder of tokens"):
        vqgan.tokens.open(tmp_path)


def test_what_is_no_token_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder of tokens"):
        vqgan.tokens.open(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ConfigError, match="no folder of tokens"):
        vqgan.tokens.open(tmp_path)


def test_two_that_write_a_file_at_the_same_time_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of one start all find that there is no manifest."""
    file, writers = tmp_path / "manifest.json", iter(["second", "third"])

    def meanwhile(_: int) -> None:
        text = next(writers, None)
        if text is not None:
            replace_text(file, text)
            assert file.read_text() == text

    monkeypatch.setattr(os, "fsync", meanwhile)
    replace_text(file, "first")
    assert file.read_text() == "first"
    assert list(tmp_path.iterdir()) == [file]
