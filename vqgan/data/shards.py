"""Clips from tar shards, in a folder or in object storage: each is one range of bytes, read when it is its turn."""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vqgan.data.corpus import ClipDataset, Corpus, Order
from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.sharding.clip import unpack_clip
from vqgan.data.sharding.index import ShardIndex, read_index
from vqgan.data.sharding.order import WindowedOrder
from vqgan.data.sharding.storage import Storage
from vqgan.errors import DataError, UnusableError, check
from vqgan.video.crop import augment
from vqgan.video.reader import read_frames
from vqgan.video.times import TIME_ROUNDING, check_times, clip_positions, clip_starts

MOST_PREFETCHED = 2**26  # bytes that are asked for at once
MOST_REMEMBERED = 256  # shards whose clips are known without looking
EVERYTHING = (-1.0, 2.0)  # a share of [0, 1)


@dataclass(kw_only=True)
class Shards(Corpus):
    """Tar shards that `vqgan shard` wrote; see `Corpus`. They are split by the video that a clip is from.

    Args:
        clip_frames: frames of a clip.
        stride: take every stride-th frame.
        fps: take the frame on screen at each 1/fps seconds instead, whatever the clip's frame rate; null for `stride`.
        shuffle_shards: clips of so many shards are mixed at a time.
        cache: folder in which the index of shards from afar is kept.
        request_seconds: for one request to the storage.
        request_attempts: of a request that fails, with longer and longer pauses; then the run ends, and can go on.
    """

    clip_frames: int
    stride: int | None
    fps: float | None
    shuffle_shards: int
    cache: str
    request_seconds: float
    request_attempts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.clip_frames > 0, "clip_frames", self.clip_frames, "positive")
        check_times(self.stride, self.fps)
        check(self.shuffle_shards > 0, "shuffle_shards", self.shuffle_shards, "positive")
        check(self.request_seconds > 0, "request_seconds", self.request_seconds, "positive")
        check(self.request_attempts > 0, "request_attempts", self.request_attempts, "positive")
        longest = self._storage("root", "").longest + self.request_seconds  # the clips of a batch are asked for before
        allowed = f"more than {longest:g}, the longest that data.request_attempts allows"
        check(self.limits.stall_seconds > longest, "limits.stall_seconds", self.limits.stall_seconds, allowed)

    @classmethod
    def reads(cls) -> frozenset[str]:
        """See `Corpus.reads`."""
        return frozenset({".tar"})

    def times(self) -> tuple[int | None, float | None]:
        """See `Corpus.times`."""
        return self.stride, self.fps

    def datasets(self, bad_files: BadFiles) -> tuple[ClipDataset, ClipDataset]:
        """See `Corpus.datasets`."""
        everything = self._open("root", self.root)
        if self.val_root is None:
            training, validation = everything.split(self.val_fraction)
        else:
            training, validation = everything, self._open("val_root", self.val_root)
            if training.index.sha256 == validation.index.sha256:  # a copy is no better
                raise self.refuse_same()
        self._describe(bad_files, training, validation)
        return training, validation

    def whole(self, bad_files: BadFiles) -> ClipDataset:
        """See `Corpus.whole`."""
        everything = self._open("root", self.root)
        self._describe(bad_files, everything)
        return everything

    def _open(self, key: str, root: str) -> ShardedClips:
        storage = self._storage(key, root)
        index = read_index(storage, Path(self.cache))
        if index.resolution is not None and index.resolution < self.resolution:
            warnings.warn(
                f"data.resolution={self.resolution} is more than the {index.resolution} pixels of the shorter side "
                f"that {root} was written with: frames are enlarged.",
                stacklevel=2,
            )
        clips = ShardedClips(self, storage, index)
        if len(clips) == 0:
            raise DataError(
                f"All of the {index.starts[-1]} clips of data.{key}={root} are too short for data.clip_frames="
                f"{self.clip_frames} at this stride or frame rate. Ask for fewer, or write shards with longer ones."
            )
        return clips

    def _storage(self, key: str, root: str) -> Storage:
        return Storage(root, f"data.{key}", self.request_seconds, self.request_attempts)

    def _describe(self, bad_files: BadFiles, *sides: ShardedClips) -> None:
        digest = hashlib.sha256()
        for clips in sides:
            digest.update(f"{clips.index.sha256} {clips.share} {len(clips)}\n".encode())
        bad_files.total = sum(map(len, sides))
        self.fingerprint = f"{bad_files.total} clips, {digest.hexdigest()[:32]}"


class ShardedClips(ClipDataset):
    """The clips of shards that are long enough, and on one side of a split.

    A stored clip gives one clip of training, which starts anywhere in it.

    Args:
        settings: what is read of each clip.
        storage: where the shards are.
        index: what is in them.
        share: of all videos, as the range [low, high) in which their hashes fall.
    """

    def __init__(
        self, settings: Shards, storage: Storage, index: ShardIndex, share: tuple[float, float] = EVERYTHING
    ) -> None:
        self.settings, self.storage, self.index, self.share = settings, storage, index, share
        self.label = storage.label
        self.remembered: dict[int, Int[np.ndarray, "members"]] = {}
        self.ends = np.cumsum([len(self._members(shard)) for shard in range(len(index.shards))], dtype=np.int64)
        self.remembered.clear()
        self.fetched: dict[int, bytes] = {}  # by the process that reads

    def __len__(self) -> int:
        return int(self.ends[-1])

    def split(self, fraction: float) -> tuple[ShardedClips, ShardedClips]:
        """Training and validation clips; no video is on both sides, unless there is just one."""
        lows, highs = zip(*(self._hashes(shard) for shard in range(len(self.index.shards))))
        low, high = min(lows), max(highs)
        if low == high:
            return self, self
        # A side that would be empty gets the video with the lowest or the highest hash.
        border = min(max(fraction, math.nextafter(low, 2)), high)
        training, validation = (border, EVERYTHING[1]), (EVERYTHING[0], border)
        return self._with(training), self._with(validation)

    def path(self, index: int) -> Path:
        """`shard.tar/clip.mp4`, below the folder of the shards."""
        return self._path(*self._locate(index))

    def video(self, index: int) -> Path:
        """The hash of the name of the video that clip `index` is from."""
        shard, row = self._locate(index)
        return Path(f"{self.index.rows_of(shard)[row]['video']:016x}")

    def order(self, seed: int, epoch: int) -> Order:
        """See `WindowedOrder`."""
        return _order(self, seed, epoch)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Ask for clips all at once where each takes its time to come."""
        if self.storage.local is not None:
            return
        self.fetched, ranges, expected = {}, [], 0
        for index in indices:
            name, start, end = self._range(*self._locate(index))
            expected += end - start
            if expected <= MOST_PREFETCHED:
                ranges.append((name, start, end))
        found = self.storage.read_many(ranges)
        self.fetched = {index: piece for index, piece in zip(indices, found) if piece is not None}

    def read(self, index: int, rng: np.random.Generator | None) -> UInt8[Tensor, "time height width rgb"]:
        """Clip `index`; see `ClipDataset.read`.

        Raises:
            UnusableError: it is damaged.
            StorageReadError: the storage does not give it.
        """
        settings = self.settings
        times = settings.clip_frames, settings.stride, settings.fps
        video = unpack_clip(self.path(index), self._piece(index))
        starts = clip_starts(video, *times)
        first, last = int(starts[0, 0]), int(starts[-1, 1])
        start = (first + last) // 2 if rng is None else int(rng.integers(first, last + 1))
        frames = read_frames(video, clip_positions(video, start, *times), settings.resolution)
        return torch.from_numpy(augment(frames, settings.resolution, rng, settings.crop == "random", settings.flip))

    def _piece(self, index: int) -> bytes:
        shard, row = self._locate(index)
        checksum = int(self.index.rows_of(shard)[row]["crc32"])
        name, start, end = self._range(shard, row)
        piece = self.fetched.pop(index, None)
        if piece is None or zlib.crc32(piece) != checksum:
            piece = self.storage.read(name, start, end)
        if len(piece) < end - start:
            raise UnusableError(f"cut off: {len(piece):,} of {end - start:,} bytes")
        if zlib.crc32(piece) != checksum:
            raise UnusableError("damaged: its checksum is another")
        return piece

    def _range(self, shard: int, row: int) -> tuple[str, int, int]:
        found = self.index.rows_of(shard)[row]
        return self.index.shards[shard].name, int(found["offset"]), int(found["offset"]) + int(found["bytes"])

    def _path(self, shard: int, row: int) -> Path:
        return self.label / self.index.shards[shard].name / f"{row:06}"

    def _locate(self, index: int) -> tuple[int, int]:
        """The number of the shard, and of the clip in it."""
        shard = int(np.searchsorted(self.ends, index, side="right"))
        before = int(self.ends[shard - 1]) if shard else 0
        return shard, int(self._members(shard)[index - before])

    def _members(self, shard: int) -> Int[np.ndarray, "members"]:
        """The clips of a shard that are among these; no list of all clips is kept, only of the shards read last."""
        if shard not in self.remembered:
            (low, high), places = self.share, self._places(shard)
            if len(self.remembered) >= MOST_REMEMBERED:
                self.remembered.clear()
            self.remembered[shard] = np.flatnonzero(self._long_enough(shard) & (places >= low) & (places < high))
        return self.remembered[shard]

    def _places(self, shard: int) -> Float[np.ndarray, "clips"]:
        return self.index.rows_of(shard)["video"] / 2.0**64

    def _long_enough(self, shard: int) -> Bool[np.ndarray, "clips"]:
        rows, settings = self.index.rows_of(shard), self.settings
        if settings.fps is None:
            return rows["frames"] > (settings.clip_frames - 1) * (settings.stride or 1)
        return rows["seconds"] + TIME_ROUNDING >= (settings.clip_frames - 1) / settings.fps

    def _hashes(self, shard: int) -> tuple[float, float]:
        """The lowest and the highest place of its videos."""
        places = self._places(shard)[self._members(shard)]
        return (float(places.min()), float(places.max())) if len(places) else (math.inf, -math.inf)

    def _with(self, share: tuple[float, float]) -> ShardedClips:
        return ShardedClips(self.settings, self.storage, self.index, share)


@functools.lru_cache(maxsize=4)
def _order(clips: ShardedClips, seed: int, epoch: int) -> WindowedOrder:
    return WindowedOrder(clips.ends, clips.settings.shuffle_shards, seed, epoch)
