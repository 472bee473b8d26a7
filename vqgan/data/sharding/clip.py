"""One clip of a shard: a piece of a tar that is a tar of two files, what is known of the clip and the video itself."""

from __future__ import annotations

import base64
import io
import json
import math
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqgan.errors import UnusableError
from vqgan.files.reading import load_json
from vqgan.video.crop import check_size
from vqgan.video.file import VideoFile

LONGEST_SIDE, MOST_FRAMES = 2**14, 10**7  # that a clip may claim to have


def pack_clip(key: str, suffix: str, video: VideoFile, origin: Mapping[str, Any]) -> bytes:
    """The piece of a tar that holds a clip: `<key>.json` and `<key><suffix>`, a sample as WebDataset calls it.

    Args:
        key: the clip's name in its shard.
        suffix: of the video's file.
        video: the clip, in memory.
        origin: what it is a part of: plain values.
    """
    assert video.content is not None
    known = {**origin, "frames": len(video.pts), "index": base64.b64encode(video.pack()).decode()}
    files = {f"{key}.json": json.dumps(known).encode(), f"{key}{suffix}": video.content}
    return b"".join(_member(name, content) for name, content in files.items())


def unpack_clip(path: Path, piece: bytes) -> VideoFile:
    """The clip, in memory.

    Raises:
        UnusableError: it is not what `pack_clip` makes.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(piece), mode="r:") as tar:
            known, content = [
                piece[member.offset_data : member.offset_data + member.size]
                for member in tar
                if member.isreg() and not member.issparse()
            ]
        packed = base64.b64decode(load_json(known)["index"], validate=True)
        video = VideoFile.unpack(path, packed, content)
    except (tarfile.TarError, ValueError, LookupError, TypeError):
        raise UnusableError("damaged: no clip as vqgan shard writes them") from None
    _check(video)
    return video


def _member(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)  # and nothing of who wrote it, or when: the same clips are the same bytes
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _check(video: VideoFile) -> None:
    """What is said of a clip may come from anywhere, and decides what is allocated."""
    sides = all(type(side) is int and 0 < side <= LONGEST_SIDE for side in (video.width, video.height))
    numbers = all(type(x) in (int, float) and math.isfinite(x) and x > 0 for x in (video.time_base, video.pixel_aspect))
    turned = video.rotation in (0, 90, 180, 270) and type(video.mirrored) is bool
    times = 0 < len(video.pts) <= MOST_FRAMES and bool((video.pts[1:] > video.pts[:-1]).all())
    if not (sides and numbers and turned and times):
        raise UnusableError("damaged: what is said of the clip cannot be")
    check_size(video.width * video.pixel_aspect, video.height)
