"""What a folder of shards holds: which clips, where, and of which video each is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from jaxtyping import Int, Shaped

from vqgan.data.sharding.storage import MissingError, Range, Storage
from vqgan.errors import DataError
from vqgan.files.reading import load_json
from vqgan.files.state import sha256_of
from vqgan.files.writing import storing

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**28  # bytes: a line of 50 for each of five million shards
LARGEST_CLIP = 2**26  # bytes: a clip is read whole, into the memory that a reading process may take
PART = 2**24  # bytes of an index that are asked for at once
CHECKED_SHARDS = 1000  # that are looked for before the run begins; of more than these, evenly spread ones
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")  # of a file: never a way out of the folder
# Of one clip: where its part of the tar is, and what must be known to draw it. Little-endian, 32 bytes.
ROW = np.dtype(
    [("offset", "<u8"), ("bytes", "<u4"), ("crc32", "<u4"), ("frames", "<u4"), ("seconds", "<f4"), ("video", "<u8")]
)


@dataclass(frozen=True)
class Shard:
    """A tar file."""

    name: str
    bytes: int
    clips: int


@dataclass(frozen=True)
class ShardIndex:
    """The clips of all shards.

    Args:
        shards: in the order of the index.
        resolution: of the clips' shorter side, at most; None where they were stored as they were.
        sha256: of the index.
        file: with a row for each clip, shard by shard; mapped into memory.
    """

    shards: tuple[Shard, ...]
    resolution: int | None
    sha256: str
    file: Path

    @cached_property
    def starts(self) -> Int[np.ndarray, "shards_plus_one"]:
        """The first row of each shard, and the number of all."""
        return np.cumsum([0, *(shard.clips for shard in self.shards)], dtype=np.int64)

    @cached_property
    def rows(self) -> Shaped[np.ndarray, "clips"]:
        """One for each clip, of type `ROW`."""
        return np.memmap(self.file, ROW, "r")

    def rows_of(self, shard: int) -> Shaped[np.ndarray, "clips"]:
        """Those of a shard, by its number."""
        return self.rows[self.starts[shard] : self.starts[shard + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "rows"}  # each process maps it anew


def read_index(storage: Storage, cache: Path) -> ShardIndex:
    """The index of a folder of shards, checked against its checksum; one from afar is kept in `cache`.

    Raises:
        DataError: the folder is none of shards, or damaged, or shards are missing.
    """
    manifest = _read_manifest(storage)
    try:
        shards = tuple(Shard(str(name), int(size), int(clips)) for name, size, clips in manifest["shards"])
        name, sha256 = str(manifest["index"]["file"]), str(manifest["index"]["sha256"])
        resolution = manifest["writing"]["resolution"] if manifest["writing"]["reencode"] else None
        sound = all(s.bytes > 0 and s.clips > 0 and NAME.match(s.name) for s in shards) and NAME.match(name)
        if not sound or not re.fullmatch("[0-9a-f]{64}", sha256) or not isinstance(resolution, int | None):
            raise ValueError("its values cannot be")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(storage, MANIFEST, str(error)) from None
    if not shards:
        raise DataError(f"{storage.key}={storage.root} holds no shards yet: vqgan shard has not finished.")
    size = sum(shard.clips for shard in shards) * ROW.itemsize
    if storage.local is not None:
        file = storage.local / name
        if not _is(file, sha256, size):
            raise _damaged(storage, name, "it is not what the manifest says")
    else:
        storage.read(name, 0, 1)  # a server that knows nothing of ranges is found out by this file, not by large ones
        file = _download(storage, name, sha256, size, cache.expanduser())
    index = ShardIndex(shards, resolution, sha256, file)
    _check_rows(index, storage, name)
    _check_shards(index, storage)
    return index


def _read_manifest(storage: Storage) -> dict[str, Any]:
    try:
        content = storage.read(MANIFEST, 0, LARGEST_MANIFEST)
    except MissingError:
        raise DataError(
            f"{storage.key}={storage.root} holds no shards: {MANIFEST} is not there. `vqgan shard VIDEOS --out SHARDS` "
            "writes them; for videos as they are take data=videos."
        ) from None
    try:
        manifest = load_json(content)
    except ValueError:
        raise _damaged(storage, MANIFEST, "it is no JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "shards" not in manifest:
        raise DataError(
            f"{storage.key}={storage.root} holds no shards of format {FORMAT}, as vqgan shard writes them. "
            "Name a folder that does."
        )
    return manifest


def _download(storage: Storage, name: str, sha256: str, size: int, cache: Path) -> Path:
    file, unfinished = cache / f"{sha256}.bin", cache / f"{sha256}.unfinished"
    with storing(file, size):
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{sha256}.lock"):  # of several processes one fetches it
            if not _is(file, sha256, size):
                with unfinished.open("wb") as target:
                    for start in range(0, size, PART):
                        target.write(storage.read(name, start, min(start + PART, size)))
                    target.flush()
                    os.fsync(target.fileno())
                if not _is(unfinished, sha256, size):
                    unfinished.unlink()
                    raise _damaged(storage, name, "it is not what the manifest says")
                unfinished.replace(file)
    return file


def _is(file: Path, sha256: str, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size and sha256_of(file) == sha256


def _check_rows(index: ShardIndex, storage: Storage, name: str) -> None:
    """No row may lead out of its shard, nor ask for more memory than there is for a clip."""
    for number, shard in enumerate(index.shards):
        rows = index.rows_of(number)
        ends = rows["offset"] + rows["bytes"]
        inside = (rows["offset"] < shard.bytes) & (ends <= shard.bytes)
        seconds = np.isfinite(rows["seconds"]) & (rows["seconds"] >= 0)
        if not (inside & seconds & (rows["bytes"] <= LARGEST_CLIP) & (rows["frames"] > 0)).all():
            raise _damaged(storage, name, f"clips of {shard.name} cannot be where it says")


def _check_shards(index: ShardIndex, storage: Storage) -> None:
    """The last byte of each shard must be there: a copy that is not complete is found before the run begins."""
    shards = [index.shards[n] for n in range(0, len(index.shards), -(-len(index.shards) // CHECKED_SHARDS))]
    ranges: list[Range] = [(shard.name, shard.bytes - 1, shard.bytes) for shard in shards]
    for asked, found in zip(ranges, storage.read_many(ranges)):
        if len(found if found is not None else storage.read(*asked)) != 1:
            raise DataError(
                f"{storage.root.rstrip('/')}/{asked[0]} is cut off: it should have {asked[2]:,} bytes. "
                "Copy it there again."
            )


def _damaged(storage: Storage, name: str, reason: str) -> DataError:
    return DataError(
        f"{storage.root.rstrip('/')}/{name} is damaged: {reason}. Copy it there again, or let vqgan shard write it."
    )
