"""What a prior tells of tokens: bits a token, a frame, a second and a pixel, beside what they cost without a model."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqgan.errors import check
from vqgan.evaluation.bootstrap import CodeUse, Interval, Mean, VideoWeights
from vqgan.evaluation.figures import Metric
from vqgan.files.writing import replace_text
from vqgan.prior.cost import Costs, codes_of_a_time
from vqgan.prior.data import Videos
from vqgan.text import counted, table
from vqgan.tokens.folder import TokenVideo

EVALUATION = "evaluation.json"
KNOWN_BEFOREHAND = "of these videos' own codes, known beforehand"


@dataclass(kw_only=True)
class Bootstrap:
    """How intervals are found: the values of `bootstrap` in `conf/prior.yaml`.

    Args:
        replicates: of the bootstrap over videos; 0 for no intervals.
        confidence: of the intervals, in (0, 1).
        seed: of the bootstrap.
    """

    replicates: int
    confidence: float
    seed: int

    def __post_init__(self) -> None:
        check(self.replicates >= 0, "replicates", self.replicates, "at least 0")
        check(0 < self.confidence < 1, "confidence", self.confidence, "in (0, 1)")


def figures(videos: Videos, costs: Costs, bootstrap: Bootstrap) -> dict[str, Metric]:
    """All figures of some videos.

    Args:
        videos: all of which were measured.
        costs: the bits of each of their times.
        bootstrap: how intervals are found.

    Returns:
        `bits_per_token`, `bits_per_frame`, `bits_per_second` and `bits_per_pixel` (of the frames as the tokenizer saw
        them), each the sum over all videos by the sum of what it is of; `below_order0`, the share in which they are
        fewer than the order-0 entropy; `order0_bits_per_token`; `fixed_bits_per_token`, log2 of the codebook's size;
        `xz_bits_per_token`, all codes one after the other through xz at its hardest; and `bits_per_token_at_…`, of the
        times at a place in their videos.
    """
    tokens, weights = videos.tokens, VideoWeights(bootstrap.replicates, bootstrap.seed)
    means = {unit: Mean(bootstrap.replicates) for unit in ("token", "frame", "second", "pixel")}
    places: dict[str, Mean] = {}
    use = CodeUse(tokens.codebook_size, tokens.depth, bootstrap.replicates)
    packer = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME)
    packed = 0
    for number, video in enumerate(videos):
        bits, drawn, codes = costs[number], weights.of(number), codes_of_a_time(videos, number)
        for unit, count in _amounts(videos, number, video).items():
            means[unit].add(float(bits.sum()), count, drawn)
        for name, part in _places(len(bits)):
            mean = places.setdefault(name, Mean(bootstrap.replicates))
            mean.add(float(bits[part].sum()), codes * len(bits[part]), drawn)
        by_depth = np.asarray(video.codes).reshape(-1, tokens.depth).T
        use.add(np.stack([np.bincount(row, minlength=tokens.codebook_size) for row in by_depth]), drawn)
        packed += len(packer.compress(np.ascontiguousarray(video.codes).tobytes()))
    packed += len(packer.flush())
    found = {
        f"bits_per_{unit}": _metric(mean, bootstrap, f"bit/{unit}")
        if mean.count
        else Metric(None, None, None, f"bit/{unit}", "the token folder does not say at what size videos were read")
        for unit, mean in means.items()
    }
    order0 = Metric(use.entropy, *_ends(use.interval(bootstrap.confidence)), "bit/token", KNOWN_BEFOREHAND)
    found |= {
        "below_order0": Metric(1 - means["token"].value / use.entropy if use.entropy else None, None, None, "", None),
        "order0_bits_per_token": order0,
        "fixed_bits_per_token": Metric(math.log2(tokens.codebook_size), None, None, "bit/token", None),
        "xz_bits_per_token": Metric(8 * packed / means["token"].count, None, None, "bit/token", None),
    }
    return found | {f"bits_per_token_at_{name}": _metric(mean, bootstrap, "bit/token") for name, mean in places.items()}


def write(folder: Path, found: Mapping[str, Metric], protocol: Mapping[str, Any]) -> None:
    """Write `evaluation.json`, in the form of a tokenizer's.

    Raises:
        StorageError: it cannot be written.
    """
    content = {"metrics": {name: asdict(metric) for name, metric in found.items()}, "protocol": protocol}
    replace_text(folder / EVALUATION, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def protocol_of(videos: Videos, root: str, step: int, bootstrap: Bootstrap, fingerprint: str) -> dict[str, Any]:
    """What was measured, and how."""
    tokens = videos.tokens
    frames = sum(video.frames for video in videos)
    reading = tokens.manifest.get("reading")
    size = reading.get("resolution") if isinstance(reading, dict) else None
    return {
        "tokenizer": {"sha256": tokens.manifest["tokenizer"], "step": step},
        "data": {
            "root": root, "fingerprint": fingerprint, "split": "validation", "videos": len(videos), "frames": frames,
            "clip_frames": "whole videos", "resolution": size,
        },
        "settings": asdict(bootstrap),
    }  # fmt: skip


def as_table(found: Mapping[str, Metric], videos: Videos, confidence: float) -> str:
    """What a person reads of it."""
    rows = [("measured on", f"{counted(len(videos), 'held-out video')}, each whole, codes from those before them")]
    for name, metric in found.items():
        shown = "not computed" if metric.value is None else f"{metric.value:.4g} {metric.unit}".strip()
        if name == "below_order0" and metric.value is not None:
            shown = f"{metric.value:.1%}"
        between = "" if metric.low is None else f"  [{metric.low:.4g}, {metric.high:.4g}]"
        said = "" if metric.reason is None else f"  ({metric.reason})"
        rows.append((name.replace("_at_", " at ").replace("_", " "), f"{shown}{between}{said}"))
    if any(metric.low is not None for metric in found.values()):
        rows.append(("[low, high]", f"{confidence:.0%} interval, by a bootstrap over videos"))
    return table(rows)


def _amounts(videos: Videos, number: int, video: TokenVideo) -> dict[str, float]:
    """How many tokens, frames, seconds and pixels a video has; no pixels where that is not known."""
    times, rows, columns = videos.shape(number)
    amounts = {
        "token": times * codes_of_a_time(videos, number),
        "frame": video.frames,
        "second": video.frames / video.fps,
    }
    reading = videos.tokens.manifest.get("reading")
    if isinstance(reading, dict) and isinstance(reading.get("resolution"), int):
        # The shorter side of a frame has `resolution` pixels.
        amounts["pixel"] = video.frames * rows * columns * (reading["resolution"] / min(rows, columns)) ** 2
    return amounts


def _places(times: int) -> Iterator[tuple[str, slice]]:
    """The places of times in a video that are told apart: the first, the second, and then by doubling."""
    first, upto = 0, 1
    while first < times:
        yield (f"time_{upto}" if upto - first == 1 else f"times_{first + 1}_to_{upto}"), slice(first, upto)
        first, upto = upto, 2 * upto


def _metric(mean: Mean, bootstrap: Bootstrap, unit: str) -> Metric:
    interval = mean.interval(bootstrap.confidence) if bootstrap.replicates else None
    return Metric(mean.value, *_ends(interval), unit, None)


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)
