"""Folders of shards for tests, and servers that give them out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.range_server import RangeHandler, Server
from tests.conftest import LIMITS
from tests.unit.video.test_video_file import Recording
from vqgan.data import Limits, Shards
from vqgan.data.sharding.clips import Sharding
from vqgan.data.sharding.folder import FolderSharder

LENGTHS = {"a.mp4": 30, "b.mp4": 17, "more/a.mp4": 5, "more/c.mp4": 24, "more/d.mp4": 16, "e.mp4": 8}


def sharding(**changes: Any) -> Sharding:
    """Small numbers: clips of 8 to 15 frames of 32 pixels."""
    values: dict[str, Any] = {
        "reencode": True, "resolution": 32, "stride": 1, "fps": None, "clip_frames": 8, "crf": 18, "keyframe_every": 4,
        "preset": "ultrafast", "workers": 0, "shard_megabytes": 256, "index": None, "limits": LIMITS,
    }  # fmt: skip
    return Sharding(**{**values, **changes})


def write_numbered_videos(folder: Path) -> None:
    """Six videos whose frames show their number."""
    (folder / "more").mkdir(parents=True)
    for name, frames in LENGTHS.items():
        Recording(b_frames=2).write_numbers(folder, frames).rename(folder / name)


def write_shards(folder: Path, videos: Path, **changes: Any) -> str:
    """What `vqgan shard` does."""
    return FolderSharder(sharding(**changes), videos, folder).run()


def shards(root: Path | str, cache: Path, **changes: Any) -> Shards:
    """Data of shards, with small numbers."""
    values: dict[str, Any] = {
        "root": str(root), "val_root": None, "val_fraction": 0.1, "validation_clips": 4, "resolution": 32,
        "clip_frames": 4, "stride": 1, "fps": None, "crop": "center", "flip": False, "batch_size": 2, "workers": 0,
        "max_bad_fraction": 0.0, "max_bad_files": 100, "shuffle_shards": 2, "cache": str(cache),
        "request_seconds": 5.0, "request_attempts": 3, "limits": LIMITS,
    }  # fmt: skip
    return Shards(**{**values, **changes})


def impatient(**changes: Any) -> dict[str, Any]:
    """Values with which a storage that does not answer is given up soon."""
    limits = Limits(seconds=10, megabytes=512, stall_seconds=30)
    return {"request_seconds": 0.5, "request_attempts": 2, "limits": limits, **changes}


@contextlib.contextmanager
def served(folder: Path, handler: type[RangeHandler] = RangeHandler) -> Iterator[str]:
    """The URL at which a folder is served."""
    with Server(folder, handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()
