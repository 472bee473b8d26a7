"""What a folder holds of what training needs: files, codecs, lengths, sizes, keyframes, and what is bad."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from vqgan.data import BadFiles, Videos
from vqgan.data.folder import split_names
from vqgan.data.loader import spread
from vqgan.data.reading.files import FileKind, find_files, look_into
from vqgan.doctor.finding import Finding
from vqgan.errors import DataError, UnusableError
from vqgan.text import counted
from vqgan.video.container import open_video
from vqgan.video.file import VideoFile
from vqgan.video.reader import read_frames
from vqgan.video.times import average_rate, clip_positions, clip_starts

MOST_OPENED = 200  # files whose codec is asked for, and of which one clip is read, evenly spread over all
MOST_NAMED = 5  # bad files, and sizes
FEW_TO_VALIDATE, FEW_CLIPS = 5, 200
FAR_KEYFRAMES = 48  # frames from one to the next: for a clip as many are decoded, half of them on average for nothing
LARGE = 4  # times the side of what is trained at


@dataclass(frozen=True)
class Survey:
    """What was found in a folder of videos.

    Args:
        findings: a line each.
        expect: what training on it will be like, a sentence each.
        change: what would make it better, a sentence each.
        usable: whether it can be trained on as it is.
    """

    findings: Sequence[Finding]
    expect: Sequence[str]
    change: Sequence[str]
    usable: bool
    frames: int  # of all that can be used


def survey(data: Videos) -> Survey:
    """Look into every file of a folder, as a run would, and read a clip of some.

    Args:
        data: as it would be trained on.

    Raises:
        DataError: it holds no video, none that can be used, or it cannot be read.
    """
    root = Path(data.root).expanduser()
    closed = _refuse_closed(root)
    bad = _ledger(data)
    files = find_files(root, "DIR", data.kind.suffixes)
    known: dict[Path, VideoFile] = look_into(files, data.kind, data.workers, data.limits, data.index, bad)
    short: list[Path] = []
    for file, video in known.items():
        try:
            data.accept(video)
        except UnusableError as error:
            short.append(file)
            bad.add(file, str(error))
    videos = {file: video for file, video in known.items() if file not in short}
    bad.total = len(files)
    if not videos:
        raise DataError(f"None of the {counted(len(files), 'file')} in {root} can be used: {bad.summary()}.")
    looks = _opened(list(videos.values()), data)
    names = [file.relative_to(root).as_posix() for file in videos]
    training, held_out = split_names(names, data.val_fraction)
    dataset = data.dataset([videos[root / name] for name in training])
    within = len(bad.reasons) <= max(data.max_bad_files, data.max_bad_fraction * len(files))
    findings = [
        _files(files, bad, root, closed), _codecs(looks), _lengths(videos.values()), _sizes(videos.values()),
        _keyframes(videos.values()), _reading(looks, data),
    ]  # fmt: skip
    expect = [
        f"{counted(len(dataset), 'clip')} of {counted(data.clip_frames, 'frame')} at {data.resolution} pixels, of "
        f"{counted(len(training), 'video')}, to train on; {counted(len(held_out), 'video')} to validate on.",
    ]
    if dataset.decoded_bytes:
        expect.append(
            f"All of it is decoded once, into {dataset.decoded_bytes / 2**20:,.0f} MB of memory, and read from there."
        )
    change = [
        *_of_bad(bad, within, data, closed),
        *_of_videos(list(videos.values()), len(held_out), len(dataset), data),
    ]
    if dataset.decoded_bytes == 0:
        change += _of_reading(list(videos.values()), data, root)
    return Survey(findings, expect, change, within, sum(len(v.pts) for v in videos.values()))


def _refuse_closed(root: Path) -> list[str]:
    """The folders below that cannot be read, which a walk passes over in silence."""
    try:
        is_folder = root.is_dir()
        if is_folder:
            os.scandir(root).close()
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error.strerror or error}.") from None
    if not is_folder:
        raise DataError(f"{root} is not a folder.")
    closed: list[OSError] = []
    for _ in os.walk(root, onerror=closed.append, followlinks=False):
        pass
    return [str(error.filename) for error in closed]


@dataclass(frozen=True)
class _Look:
    """What a file says when it is opened, and how many seconds a clip of it took."""

    codec: str
    suffix: str
    seconds: float


@dataclass(frozen=True)
class _Opening:
    """Opens a file and reads a clip from its middle; goes to the processes that read."""

    videos: Mapping[Path, VideoFile]
    data: Videos

    def __call__(self, path: Path) -> tuple[_Look, None]:
        video, data = self.videos[path], self.data
        container, stream = open_video(path)
        with container:
            codec = stream.codec_context.codec.canonical_name
        starts = clip_starts(video, data.clip_frames, data.stride, data.fps)
        start = int(starts[len(starts) // 2, 0])
        positions = clip_positions(video, start, data.clip_frames, data.stride, data.fps)
        before = time.perf_counter()
        read_frames(video, positions, data.resolution)
        return _Look(codec, path.suffix.lower(), time.perf_counter() - before), None


def _opened(videos: Sequence[VideoFile], data: Videos) -> list[_Look]:
    """Some of them, within the limits of a run."""
    some = {videos[n].path: videos[n] for n in spread(len(videos), MOST_OPENED)}
    # Of one file after the other, since it is timed; nothing of that is for an index.
    kind = FileKind("looks", data.kind.suffixes, _Opening(some, data), lambda _: b"", _unpacked)
    return list(look_into(list(some), kind, min(data.workers, 1), data.limits, None, _ledger(data)).values())


def _unpacked(path: Path, _: bytes) -> _Look:
    raise ValueError(f"what is known of {path} is not kept")


def _ledger(data: Videos) -> BadFiles:
    """One that is not written."""
    return BadFiles(Path(data.root, "nowhere"), max_fraction=1.0, max_files=0, writes=False)


def _files(files: Sequence[Path], bad: BadFiles, root: Path, closed: Sequence[str]) -> Finding:
    said = counted(len(files), "file")
    said += f", of which {bad.said()}" if bad.reasons else ""
    said += f"; {counted(len(closed), 'folder')} cannot be entered" if closed else ""
    named = [f"\n  {os.path.relpath(path, root)}: {bad.reasons[path]}" for path in sorted(bad.reasons)]
    more = len(named) - MOST_NAMED
    said += "".join(named[:MOST_NAMED]) + (f"\n  … and {more} more, as --json lists them" if more > 0 else "")
    return Finding("files", said, {"count": len(files), "bad": dict(bad.reasons), "cannot_be_entered": list(closed)})


def _codecs(looks: Sequence[_Look]) -> Finding:
    counts = {name: Counter(getattr(look, name) for look in looks) for name in ("codec", "suffix")}
    said = " in ".join(", ".join(f"{name} ({count})" for name, count in of.most_common()) for of in counts.values())
    return Finding("codecs", said, {"codecs": dict(counts["codec"]), "suffixes": dict(counts["suffix"])})


def _lengths(videos: Collection[VideoFile]) -> Finding:
    seconds = [float(v.seconds[-1]) + 1 / _rate(v) for v in videos]
    frames, rates = sum(len(v.pts) for v in videos), [_rate(v) for v in videos]
    values = {"frames": frames, "seconds": {**_range(seconds), "together": sum(seconds)}, "fps": _range(rates)}
    said = f"{_said(seconds, 's')}, together {sum(seconds) / 60:,.3g} min and {frames:,} frames; {_said(rates, 'fps')}"
    return Finding("lengths", said, values)


def _sizes(videos: Collection[VideoFile]) -> Finding:
    counts = Counter("{} × {}".format(*v.displayed_size) for v in videos)
    shown = [f"{size} ({count})" for size, count in counts.most_common(MOST_NAMED)]
    more = len(counts) - len(shown)
    return Finding("sizes", ", ".join(shown) + (f" and {more} others" if more > 0 else ""), dict(counts))


def _keyframes(videos: Collection[VideoFile]) -> Finding:
    apart = [_apart(v) for v in videos if len(v.keyframes)]
    unknown = len(videos) - len(apart)
    said = [f"one every {_said(apart, 'frames')}"] if apart else []
    said += [f"of {counted(unknown, 'video')} none can be trusted, and decoding begins at the first frame"] * bool(
        unknown
    )
    return Finding("keyframes", "; ".join(said), {"frames_apart": _range(apart) if apart else None, "unknown": unknown})


def _reading(looks: Sequence[_Look], data: Videos) -> Finding:
    if not looks:
        return Finding("reading", "no clip could be read")
    rate = data.clip_frames / median(look.seconds for look in looks)
    said = f"{rate:,.0f} frames a second by one process, in clips of {data.clip_frames} at {data.resolution} pixels"
    return Finding("reading", said, {"frames_per_second": rate})


def _of_bad(bad: BadFiles, within: bool, data: Videos, closed: Sequence[str]) -> list[str]:
    found = [f"{counted(len(closed), 'folder')} cannot be entered: see their permissions."] if closed else []
    if within:
        return found
    return [
        f"A run would end: {len(bad.reasons)} of {bad.total} files are bad, more than data.max_bad_files="
        f"{data.max_bad_files} and data.max_bad_fraction={data.max_bad_fraction} allow. Mend or remove them, or type "
        "data.max_bad_fraction=1.",
        *found,
    ]


def _of_videos(videos: Sequence[VideoFile], held_out: int, clips: int, data: Videos) -> list[str]:
    change = []
    if len(videos) == 1:
        change.append("One video is both trained and validated on: name others, data.val_root=DIR.")
    elif held_out < FEW_TO_VALIDATE:
        change.append(
            f"{counted(held_out, 'video')} to validate on: too few to tell of others. data.val_root=DIR, or a larger "
            "data.val_fraction."
        )
    if clips < FEW_CLIPS:
        change.append(f"{counted(clips, 'clip')} to train on are few: codes will know these videos alone.")
    if len({round(w / h, 2) for w, h in (v.displayed_size for v in videos)}) > 1:
        change.append(
            "Videos have several shapes: whole frames become grids of several sizes, which do not stack. vqgan encode "
            "… square=true gives all the same."
        )
    small = sum(min(v.displayed_size) < data.resolution for v in videos)
    if small:
        change.append(f"{counted(small, 'video')} are smaller than {data.resolution} pixels and would be enlarged.")
    return change


def _of_reading(videos: Sequence[VideoFile], data: Videos, root: Path) -> list[str]:
    shard = f"vqgan shard {root} --out SHARDS resolution={data.resolution}, then data=shards data.root=SHARDS."
    if median(_apart(v) for v in videos) > FAR_KEYFRAMES:
        return [f"Keyframes are far apart, so a clip costs the decoding of many frames beside its own: {shard}"]
    if median(min(v.displayed_size) for v in videos) > LARGE * data.resolution:
        return [f"Videos are much larger than {data.resolution} pixels, and decoding them is most of reading: {shard}"]
    return []


def _rate(video: VideoFile) -> float:
    return average_rate(video.time_base, video.pts)


def _apart(video: VideoFile) -> float:
    return len(video.pts) / max(1, len(video.keyframes))


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"least": float(min(values)), "median": float(np.median(values)), "most": float(max(values))}


def _said(values: Sequence[float], unit: str) -> str:
    least, middle, most = _range(values).values()
    if f"{least:.3g}" == f"{most:.3g}":
        return f"{middle:.3g} {unit}"
    return f"{middle:.3g} {unit} ({least:.3g} to {most:.3g})"
