"""Writing shards so that a kill at any instant leaves whole ones only, and the index of all that are there."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vqgan.data.folder import name_hash
from vqgan.data.sharding.clip import pack_clip
from vqgan.data.sharding.index import MANIFEST, ROW
from vqgan.errors import DataError
from vqgan.files.reading import load_json, read_lines
from vqgan.files.state import FileState
from vqgan.files.writing import replace_text, storing, write_all
from vqgan.runtime.signals import undisturbed
from vqgan.video.file import VideoFile

LONGEST_LINE = 2**16  # bytes, of a shard's list
END = bytes(2 * tarfile.BLOCKSIZE)  # of a tar


class TarWriter:
    """Writes the clips of one video after the other to `<name>-00000.tar`, `<name>-00001.tar`, …

    A tar gets its name when it is complete, then its list `<name>-00000.jsonl`; without a list it does not count.

    Args:
        folder: of the shards.
        name: of the shards; no other process writes to shards of that name.
        largest: bytes beyond which a new shard is begun; a video is never divided.
    """

    def __init__(self, folder: Path, name: str, largest: int) -> None:
        self.folder, self.name, self.largest = folder, name, largest
        there = [int(file.stem.rpartition("-")[2]) for file in folder.glob(f"{name}-*.jsonl")]
        self.number = max(there, default=-1) + 1
        self.tar: FileIO | None = None
        self.lines: list[str] = []  # one for each clip
        self.complete = (0, 0)  # bytes and clips of the videos that are

    def add(self, clip: VideoFile, suffix: str, video: str, first_frame: int, state: FileState | None) -> None:
        """Add a clip of the video that is being written; `state` is of that video's file.

        Raises:
            StorageError: it cannot be written.
        """
        assert clip.content is not None
        key = f"{len(self.lines):06}"
        piece = pack_clip(key, suffix, clip, {"video": video, "first_frame": first_frame})
        with storing(self._unfinished):
            tar = self.tar or self._open()
            offset = tar.tell()
            write_all(tar, piece)
        line = {
            "key": key, "offset": offset, "bytes": len(piece), "crc32": zlib.crc32(piece), "frames": len(clip.pts),
            "seconds": float(clip.seconds[-1]), "video": video, "first_frame": first_frame,
            "file_bytes": state and state[0], "file_changed": state and state[1],
        }  # fmt: skip
        self.lines.append(json.dumps(line) + "\n")

    def finish(self) -> None:
        """The video is complete."""
        if self.tar is not None:
            self.complete = self.tar.tell(), len(self.lines)
            if self.complete[0] >= self.largest:
                self.close()

    def close(self) -> None:
        """Publish the shard with the videos that are complete; a signal waits until that is done.

        Raises:
            StorageError: that is not possible.
        """
        if self.tar is None:
            return
        with undisturbed(), storing(self._unfinished):
            (size, clips), lines = self.complete, self.lines
            file, self.tar, self.lines, self.complete = self.tar, None, [], (0, 0)  # first: it is not done twice
            with file:
                file.truncate(size)
                file.seek(size)
                write_all(file, END)
                os.fsync(file.fileno())
            if clips:
                tar = self.folder / f"{self.name}-{self.number:05}.tar"
                self._unfinished.replace(tar)
                replace_text(tar.with_suffix(".jsonl"), "".join(lines[:clips]))
                self.number += 1
            else:
                self._unfinished.unlink()

    @property
    def _unfinished(self) -> Path:
        return self.folder / f".{self.name}.unfinished"

    def _open(self) -> FileIO:
        self.tar = FileIO(self._unfinished, "w")
        return self.tar


def listed(folder: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """The complete shards of a folder, each with what its list says of its clips.

    Raises:
        DataError: a list is damaged, or its shard is gone.
    """
    for file in sorted(folder.glob("shard-*.jsonl")):
        tar = file.with_suffix(".tar")
        try:
            lines = [load_json(line.decode()) for line in read_lines(file, LONGEST_LINE) if line != b"\n"]
            if not _rows(lines).size:
                raise ValueError("it names no clip")
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{file} is damaged ({error}). Remove it and {tar.name}, and type the same command, which writes those "
                "clips anew."
            ) from None
        if not tar.is_file():
            raise DataError(
                f"{tar} is gone, but its list {file.name} is there. Put it back; or remove the list, and type the same "
                "command, which writes those clips anew."
            )
        yield tar, lines


def made_of(lines: Iterable[dict[str, Any]]) -> dict[str, FileState | None]:
    """The videos that clips are of, each with the state that its file had; version 0.1 did not write that down."""
    states: dict[str, FileState | None] = {}
    for line in lines:
        size, changed = line.get("file_bytes"), line.get("file_changed")
        states[line["video"]] = None if size is None or changed is None else (size, changed)
    return states


def write_index(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the index of all complete shards, and the manifest with it; returns that.

    Args:
        folder: of the shards.
        manifest: what else it says.

    Raises:
        StorageError: they cannot be written.
    """
    aside = folder / ".index.unfinished"
    digest, shards = hashlib.sha256(), []
    clips = frames = 0
    with storing(aside), aside.open("wb") as target:
        for tar, lines in listed(folder):
            rows = _rows(lines)
            target.write(rows.tobytes())
            digest.update(rows.tobytes())
            shards.append([tar.name, tar.stat().st_size, len(rows)])
            clips, frames = clips + len(rows), frames + int(rows["frames"].sum())
        target.flush()
        os.fsync(target.fileno())
    index = {"file": f"index-{digest.hexdigest()[:16]}.bin", "sha256": digest.hexdigest()}
    manifest = {**manifest, "clips": clips, "frames": frames, "index": index, "shards": shards}
    with storing(folder):
        aside.replace(folder / index["file"])
        replace_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        for old in folder.glob("index-*.bin"):
            if old.name != index["file"]:
                old.unlink()
    return manifest


def _rows(lines: Iterable[dict[str, Any]]) -> Shaped[np.ndarray, "clips"]:
    keys = ("offset", "bytes", "crc32", "frames", "seconds")
    return np.array([(*(line[key] for key in keys), name_hash(line["video"])) for line in lines], ROW)
