"""Packs are what other engines read: by their own readers where they are installed, and by their formats' words."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vqgan.packing
from tests.support.token_folders import SHAPES, SIZE, codes_of, contents, packing, write_tokens
from vqgan.data.folder import name_hash
from vqgan.errors import ConfigError, DataError, InvalidValueError, RunFolderInUseError
from vqgan.files.lock import hold
from vqgan.packing.arrow import DatasetsPacker
from vqgan.packing.memmap import MemmapPacker
from vqgan.packing.plan import frames_of, windows
from vqgan.packing.writer import Packer
from vqgan.runtime.process import Process
from vqgan.tokens.folder import Tokens
from vqgan.tokens.side import write_side

MANY = {f"{number:02}.mp4": (60 + number, 64, 32) for number in range(14)}  # several chunks of 1 MB


def pack(tokens: Tokens, out: Path, *typed: str, rank: int = 0, count: int = 1, **more: Any) -> str:
    return MemmapPacker(tokens, packing(*typed), out, process=Process(rank, count, rank), **more).run()


def read_by_description(split: Path) -> list[np.ndarray]:
    """The documents of a `.bin` by its `.idx`, by what is published of Megatron's format, and nothing of ours."""
    index = (split / "tokens.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    dtype = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}[code]
    at = 9 + 8 + 1 + 8 + 8
    lengths = np.frombuffer(index, "<i4", sequences, at)
    pointers = np.frombuffer(index, "<i8", sequences, at + 4 * sequences)
    firsts = np.frombuffer(index, "<i8", documents, at + 12 * sequences)
    assert len(index) == at + 12 * sequences + 8 * documents
    assert firsts.tolist() == list(range(sequences + 1))
    content = (split / "tokens.bin").read_bytes()
    return [np.frombuffer(content, dtype, length, start) for length, start in zip(lengths, pointers)]


def expected_tokens(path: str) -> list[int]:
    return [SIZE, *codes_of(path, SHAPES[path]).reshape(-1).tolist(), SIZE + 1]


def test_a_pack_says_what_it_is_and_is_that(tmp_path: Path) -> None:
    pack(write_tokens(tmp_path / "tokens"), tmp_path / "pack")
    assert {split.name for split in (tmp_path / "pack").iterdir() if split.is_dir()} == {"train", "val"}
    seen = []
    for split in ("train", "val"):
        folder = tmp_path / "pack" / split
        said = json.loads((folder / "meta.json").read_text())
        lines = [json.loads(line) for line in (folder / "documents.jsonl").read_text().splitlines()]
        tokens, offsets = np.memmap(folder / "tokens.bin", said["dtype"], "r"), np.load(folder / "offsets.npy")
        assert said["dtype"] == "uint16"
        assert said["order"] == ["t", "y", "x"]
        assert said["special_tokens"] == {"begin_of_video": 300, "end_of_frame": None, "end_of_video": 301}
        assert (said["codebook_size"], said["vocabulary"], said["padded_vocabulary"]) == (300, 302, 384)
        assert said["tokenizer"] == "0" * 64
        assert said["codebook"] is None
        assert said["tokens"] == len(tokens)
        assert said["documents"] == len(lines) == len(offsets) - 1
        assert said["shapes"] == [list(SHAPES[line["path"]]) for line in lines]
        assert said["frames"] == sum(shape[0] for shape in said["shapes"])
        assert said["frames_per_second"] == pytest.approx(12.5)
        assert said["tokens_per_frame"] == len(tokens) / said["frames"]
        assert said["tokens_per_second"] == pytest.approx(12.5 * len(tokens) / said["frames"])
        for line, begin, end in zip(lines, offsets, offsets[1:]):
            assert tokens[begin:end].tolist() == expected_tokens(line["path"])
            assert line["tokens"] == end - begin
        seen += [line["path"] for line in lines]
        assert [document.tolist() for document in read_by_description(folder)] == [
            expected_tokens(line["path"]) for line in lines
        ]
    assert sorted(seen) == sorted(SHAPES)


def test_a_pack_says_which_ids_were_chosen(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    pack(tokens, tmp_path / "pack", "begin_of_video=false", "end_of_frame=400", "end_of_video=true")
    split = tmp_path / "pack" / "train"
    said = json.loads((split / "meta.json").read_text())
    assert said["special_tokens"] == {"begin_of_video": None, "end_of_frame": 400, "end_of_video": 300}
    assert (said["vocabulary"], said["padded_vocabulary"]) == (401, 512)
    for document, line in zip(vqgan.packing.open(split), read_by_description(split)):
        times = codes_of(document.path, SHAPES[document.path]).reshape(SHAPES[document.path][0], -1).tolist()
        assert line.tolist() == [*(token for time in times for token in [*time, 400]), 300]
        np.testing.assert_array_equal(document.codes, codes_of(document.path, SHAPES[document.path]))
    with pytest.raises(ConfigError, match=r"end_of_frame must be true, false, or an id in \[300, .*, but is 3\."):
        pack(tokens, tmp_path / "other", "end_of_frame=3")


def test_the_split_is_that_of_training(tmp_path: Path) -> None:
    shapes = {f"{number}.mp4": (1, 1, 1) for number in range(60)}
    pack(write_tokens(tmp_path / "tokens", shapes), tmp_path / "pack", "val_fraction=0.2")
    chosen = {document.path for document in vqgan.packing.open(tmp_path / "pack" / "val")}
    assert chosen == {path for path in shapes if name_hash(path) / 2**64 < 0.2}
    assert 4 < len(chosen) < 25
    pack(write_tokens(tmp_path / "t", shapes), tmp_path / "all", "val_fraction=0")
    assert len(vqgan.packing.open(tmp_path / "all" / "train")) == 60
    assert not (tmp_path / "all" / "val").exists()


def test_the_split_can_be_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokens = write_tokens(tmp_path / "tokens")
    Path("one.txt").write_text("d.mp4\n\na.mp4\n")
    Path("two.txt").write_text("b/c.mp4\n")
    pack(tokens, tmp_path / "pack", "lists={some: one.txt, others: two.txt}")
    for split, paths in {"some": ["a.mp4", "d.mp4"], "others": ["b/c.mp4"]}.items():
        assert [document.path for document in vqgan.packing.open(tmp_path / "pack" / split)] == paths
    Path("two.txt").write_text("b/c.mp4\na.mp4\n")
    with pytest.raises(ConfigError, match=r"lists.others=two.txt names a.mp4, as lists.some does"):
        pack(tokens, tmp_path / "both", "lists={some: one.txt, others: two.txt}")
    Path("two.txt").write_text("b/c.mp4\nnone.mp4\n")
    with pytest.raises(ConfigError, match=r"lists.others=two.txt names 1 video that the tokens lack .*none.mp4"):
        pack(tokens, tmp_path / "missing", "lists={some: one.txt, others: two.txt}")
    with pytest.raises(ConfigError, match=r"lists.some=three.txt cannot be read"):
        pack(tokens, tmp_path / "unread", "lists={some: three.txt}")
    for name in ("../up", "a/b", ""):
        with pytest.raises(InvalidValueError, match="lists must be names"):
            packing().__class__(**{**vars(packing()), "lists": {name: "one.txt"}})


@pytest.mark.parametrize(
    ("times", "window", "overlap", "expected"),
    [
        (10, 4, 1, [(0, 4), (3, 4), (6, 4)]),
        (11, 4, 1, [(0, 4), (3, 4), (6, 4), (9, 2)]),
        (8, 4, 0, [(0, 4), (4, 4)]),
        (9, 4, 0, [(0, 4), (4, 4), (8, 1)]),
        (4, 4, 3, [(0, 4)]),
        (3, 4, 3, [(0, 3)]),
        (5, None, 0, [(0, 5)]),
    ],
)
def test_windows_cover_a_video(times: int, window: int | None, overlap: int, expected: list[tuple[int, int]]) -> None:
    assert windows(times, window, overlap) == expected


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_windows_of_long_videos(overlap: int, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", side=(2,))
    pack(tokens, tmp_path / "pack", "window=3", f"overlap={overlap}", "val_fraction=0", "end_of_frame=true")
    found = vqgan.packing.open(tmp_path / "pack" / "train")
    expected = [(path, *run) for path in sorted(SHAPES) for run in windows(SHAPES[path][0], 3, overlap)]
    assert [(document.path, document.first, len(document.codes)) for document in found] == expected
    for document in found:
        whole, last = codes_of(document.path, SHAPES[document.path]), document.first + len(document.codes)
        np.testing.assert_array_equal(document.codes, whole[document.first : last])
        np.testing.assert_array_equal(
            document.side, tokens[tokens.paths.index(document.path)].side[document.first : last]
        )
        ids = document.tokens.tolist()
        assert (ids[0] == SIZE, ids[-1] == SIZE + 2) == (document.first == 0, last == len(whole))
        assert ids.count(SIZE + 1) == len(document.codes)


def test_frames_that_share_codes_keep_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three frames to a time of codes, but for a video's first; here each video's last time lacks one."""
    assert [frames_of(first, 1, 8, 3) for first in range(4)] == [(0, 1), (1, 3), (4, 3), (7, 1)]
    assert frames_of(1, 2, 8, 3) == (1, 6)
    assert frames_of(2, 2, 8, 3) == (4, 4)
    assert frames_of(2, 5, 9, 1) == (2, 5)
    counts = {path: max(1, 1 + 3 * (shape[0] - 1) - 1) for path, shape in SHAPES.items()}
    tokens = write_tokens(tmp_path / "tokens", frames=counts, temporal_downsampling=3)
    for path, count in counts.items():
        write_side(tmp_path / "tokens", path, np.arange(count))
    pack(tokens, tmp_path / "pack", "window=2", "val_fraction=0")
    found = vqgan.packing.open(tmp_path / "pack" / "train")
    assert found.meta["temporal_downsampling"] == 3
    assert found.meta["frames"] == sum(counts.values())
    for path, count in counts.items():
        rows = [document.side.tolist() for document in found if document.path == path]
        assert [row for each in rows for row in each] == list(range(count))
        assert len(rows[0]) == min(4, count)
        assert {len(each) for each in rows[1:-1]} <= {6}


@pytest.mark.parametrize("row", [(), (4,), (2, 3)])
def test_side_data_lie_beside_in_numpys_own_format(row: tuple[int, ...], tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", side=row)
    pack(tokens, tmp_path / "pack", "val_fraction=0")
    folder = tmp_path / "pack" / "train"
    rows, offsets = np.load(folder / "side.npy", mmap_mode="r"), np.load(folder / "side_offsets.npy")
    assert rows.shape == (sum(shape[0] for shape in SHAPES.values()), *row)
    for video, begin, end in zip(tokens, offsets, offsets[1:]):
        np.testing.assert_array_equal(rows[begin:end], video.side)
    assert json.loads((folder / "meta.json").read_text())["side"] == {"dtype": "float32", "shape": list(row)}
    pack(tokens, tmp_path / "without", "side=false")
    assert not list((tmp_path / "without").rglob("side*"))


def test_side_data_of_another_kind_are_refused_by_name(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", side=(2,))
    file = tmp_path / "tokens" / "side" / "b" / "c.mp4.npy"
    np.save(file, np.zeros((7, 3), np.float32))
    with pytest.raises(DataError, match=r"Side data of b/c.mp4: float32 numbers of shape \(3,\) a frame; of a.mp4: "):
        pack(tokens, tmp_path / "pack")
    file.unlink()
    with pytest.raises(DataError, match=r"Side data of b/c.mp4: none; of a.mp4: float32 .*side=false"):
        pack(tokens, tmp_path / "pack")
    np.save(file, np.zeros((6, 2), np.float32))
    with pytest.raises(DataError, match=r"c.mp4.npy is not the side data of b/c.mp4 \(6 rows for 7 frames\)"):
        pack(tokens, tmp_path / "pack")


def test_several_codes_a_position_and_their_digits_come_back(tmp_path: Path) -> None:
    shapes = {"a.mp4": (3, 2, 2, 4), "b.mp4": (2, 3, 1, 4)}
    tokens = write_tokens(tmp_path / "tokens", shapes, 2**18, depth=4)
    for factors in (1, 2):
        out = tmp_path / str(factors)
        pack(tokens, out, f"factors={factors}", "val_fraction=0")
        found = vqgan.packing.open(out / "train")
        assert found.meta["dtype"] == {1: "uint32", 2: "uint16"}[factors]
        assert found.meta["order"] == ["t", "y", "x", "depth", *(["digit"] if factors == 2 else [])]
        for document, path in zip(found, shapes):
            np.testing.assert_array_equal(document.codes, codes_of(path, shapes[path], 2**18))
        assert [line.tolist() for line in read_by_description(out / "train")] == [d.tokens.tolist() for d in found]


def sums_hold(folder: Path) -> bool:
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    named = {name: digest for digest, name in lines}
    files = {name: content for name, content in contents(folder).items() if name != "SHA256SUMS"}
    return named == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_any_number_of_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", MANY, side=(3,))
    typed = ("window=50", "overlap=7", "chunk_megabytes=1", "val_fraction=0.3")
    said = pack(tokens, tmp_path / "one", *typed)
    assert said in {f"{number} chunks packed" for number in range(4, 20)}
    for count in (2, 3):
        out = tmp_path / str(count)
        each = [pack(tokens, out, *typed, rank=rank, count=count) for rank in reversed(range(count))]
        assert [line.endswith("; other processes have not ended") for line in each] == [True] * (count - 1) + [False]
        assert contents(out) == contents(tmp_path / "one")
    assert sums_hold(tmp_path / "one")
    pack(tokens, tmp_path / "large", *typed[:2], typed[3])
    assert contents(tmp_path / "large")["train/tokens.bin"] == contents(tmp_path / "one")["train/tokens.bin"]


class Killed(BaseException):
    pass


def test_what_a_kill_leaves_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended at each write of a chunk and of what belongs beside, the same command ends with the same bytes."""
    tokens = write_tokens(tmp_path / "tokens", MANY, side=(3,))
    typed = ("chunk_megabytes=1", "val_fraction=0.3")
    pack(tokens, tmp_path / "whole", *typed)
    write, replace = MemmapPacker.write_chunk, Path.replace
    left = 0  # steps until the end comes

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    def writing(self: MemmapPacker, *arguments: Any) -> str:
        mark = write(self, *arguments)
        step()
        return mark

    def moving(self: Path, target: Path) -> Path:
        step()
        return replace(self, target)

    monkeypatch.setattr(MemmapPacker, "write_chunk", writing)
    monkeypatch.setattr(Path, "replace", moving)
    for kills in range(60):
        left = kills + 1
        try:
            pack(tokens, tmp_path / "killed", *typed)
            break
        except Killed:
            assert not (tmp_path / "killed" / "SHA256SUMS").exists()
    assert kills > 10
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert "already there" in pack(tokens, tmp_path / "killed", *typed)


@pytest.mark.parametrize("kind", [MemmapPacker, DatasetsPacker])
def test_what_was_cut_off_is_written_again(kind: type[Packer], tmp_path: Path) -> None:
    """Before the pack is whole, also where another process would make the file as long as it was; and afterwards."""
    if kind is DatasetsPacker:
        pytest.importorskip("datasets")
    tokens, values = write_tokens(tmp_path / "tokens", MANY, side=(3,)), packing("chunk_megabytes=1")
    kind(tokens, values, tmp_path / "whole").run()
    out = tmp_path / "cut"
    kind(tokens, values, out, process=Process(0, 2, 0)).run()
    kinds = {".bin", ".npy", ".arrow"}
    files = [file for file in out.rglob("*") if file.suffix in kinds]
    assert files
    for file in files:
        os.truncate(file, 100)
    for rank in (1, 0):
        kind(tokens, values, out, process=Process(rank, 2, rank)).run()
    assert contents(out) == contents(tmp_path / "whole")
    file = max((file for file in out.rglob("*") if file.suffix in kinds), key=lambda file: file.stat().st_size)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.warns(UserWarning, match=rf"{re.escape(file.name)} is not what was packed: all is packed anew"):
        kind(tokens, values, out).run()
    assert contents(out) == contents(tmp_path / "whole")
    assert kind(tokens, values, out).run().startswith("0 chunks packed, all ")


def test_a_pack_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    pack(tokens, tmp_path / "pack")
    before = contents(tmp_path / "pack")
    assert pack(tokens, tmp_path / "pack") == "0 chunks packed, all 2 chunks already there"
    with pytest.raises(ConfigError, match="in another way: end_of_frame was False and is True"):
        pack(tokens, tmp_path / "pack", "end_of_frame=true")
    other = write_tokens(tmp_path / "others", {**SHAPES, "f.mp4": (1, 2, 3)})
    with pytest.raises(ConfigError, match="in another way: source was"):
        pack(other, tmp_path / "pack")
    assert contents(tmp_path / "pack") == before
    with hold(tmp_path / "pack", 0), pytest.raises(RunFolderInUseError):
        pack(tokens, tmp_path / "pack")


def test_codes_that_changed_are_not_packed(tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens")
    (shard,) = (tmp_path / "tokens").glob("*.bin")
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged: the codes of .* are not those that were written"):
        pack(tokens, tmp_path / "pack")
    assert not (tmp_path / "pack" / "SHA256SUMS").exists()
    manifest = tmp_path / "tokens" / "manifest.json"
    content[5] ^= 1
    shard.write_bytes(content)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "codebook_size": 280}))
    with pytest.raises(DataError, match=r"a code of 29\d in a codebook of 280"):
        pack(vqgan.tokens.open(tmp_path / "tokens"), tmp_path / "smaller")


def test_a_pack_that_is_damaged_is_refused(tmp_path: Path) -> None:
    pack(write_tokens(tmp_path / "tokens"), tmp_path / "pack")
    folder = tmp_path / "pack" / "train"
    (folder / "tokens.bin").write_bytes((folder / "tokens.bin").read_bytes()[:-2])
    with pytest.raises(DataError, match="is damaged"):
        vqgan.packing.open(folder)
    with pytest.raises(ConfigError, match="is no split of tokens packed by vqgan pack"):
        vqgan.packing.open(tmp_path / "pack")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("window=0", "window must be positive"),
        ("overlap=1", r"overlap must be in \[0, window\)"),
        ("val_fraction=1.0", r"val_fraction must be in \[0, 1\)"),
        ("factors=0", "factors must be positive"),
        ("pad_to=0", "pad_to must be positive"),
        ("chunk_megabytes=0", "chunk_megabytes must be positive"),
        ("factors=10", r"factors must be in \[1, 9\]"),
    ],
)
def test_a_value_out_of_range_is_named(typed: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=said):
        pack(write_tokens(tmp_path / "tokens"), tmp_path / "pack", typed)


def test_arrow_is_what_datasets_loads(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    tokens = write_tokens(tmp_path / "tokens", side=(2, 2))
    values = packing("window=3", "end_of_frame=true")
    MemmapPacker(tokens, values, tmp_path / "pack").run()
    DatasetsPacker(tokens, values, tmp_path / "arrow").run()
    loaded = datasets.load_from_disk(str(tmp_path / "arrow"))
    assert sorted(loaded) == ["train", "val"]
    for split in loaded:
        documents = vqgan.packing.open(tmp_path / "pack" / split)
        assert len(loaded[split]) == len(documents)
        for row, document in zip(loaded[split], documents):
            assert row["input_ids"] == document.tokens.tolist()
            assert (row["path"], row["first"], row["shape"]) == (
                document.path, document.first, list(document.codes.shape)
            )  # fmt: skip
            np.testing.assert_array_equal(row["side"], document.side.reshape(len(document.side), -1))
    assert loaded["train"].with_format("torch")[0]["input_ids"].tolist() == loaded["train"][0]["input_ids"]


def test_arrow_by_several_processes_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    tokens, values = write_tokens(tmp_path / "tokens", MANY), packing("chunk_megabytes=1")
    DatasetsPacker(tokens, values, tmp_path / "one").run()
    for rank in (1, 0):
        DatasetsPacker(tokens, values, tmp_path / "two", process=Process(rank, 2, rank)).run()
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert sums_hold(tmp_path / "two")
    assert len([name for name in contents(tmp_path / "one") if name.endswith(".arrow")]) > 2


@pytest.mark.parametrize("size", [SIZE, 2**18])
def test_megatrons_own_reader_reads_it(size: int, tmp_path: Path) -> None:
    indexed = pytest.importorskip("megatron.core.datasets.indexed_dataset", exc_type=ImportError)
    pack(write_tokens(tmp_path / "tokens", size=size), tmp_path / "pack", "val_fraction=0")
    found = indexed.IndexedDataset(str(tmp_path / "pack" / "train" / "tokens"))
    documents = vqgan.packing.open(tmp_path / "pack" / "train")
    assert len(found) == len(documents) == len(SHAPES)
    assert found.document_indices.tolist() == list(range(len(SHAPES) + 1))
    for number, document in enumerate(documents):
        np.testing.assert_array_equal(found[number], document.tokens)
        np.testing.assert_array_equal(found.get(number, offset=2, length=3), document.tokens[2:5])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tokens(tmp_path: Path) -> None:
    """512 MB of codes in one shard, packed by chunks of 8 MB."""
    write_tokens(tmp_path / "tokens", {f"{n:02}.mp4": (256, 256, 256) for n in range(16)})
    program = """
import resource, sys
from pathlib import Path
import vqgan.tokens
from tests.support.token_folders import packing
from vqgan.packing.memmap import MemmapPacker
packer = MemmapPacker(vqgan.tokens.open(sys.argv[1]), packing("chunk_megabytes=8"), Path(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
packer.run()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    said = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "tokens", tmp_path / "pack"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(said) < 200
