"""Rate and distortion: what tokenizers' tokens cost under their priors, and how good they are, in one plane."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vqgan.files.reading import number, read_object
from vqgan.files.writing import replace_text
from vqgan.reports.page import names_of
from vqgan.reports.referee import page

EVALUATION = "evaluation.json"  # in a run folder, of a tokenizer and of a prior
COSTS = {"bits_per_second": "bit/s", "bits_per_pixel": "bit/pixel", "below_order0": ""}  # a prior's
QUALITIES = {"psnr": "dB", "ssim": "", "lpips": "", "rfid": "", "rfvd": ""}  # a tokenizer's
UNITS = {**COSTS, **QUALITIES}
BITS = (
    "Bits of a tokenizer are those of its codes under its prior, on the prior's held-out videos; of a codec its "
    "packets, by the seconds that they last. Quality is what vqgan evaluate measured."
)
MOST_CODECS = 200  # points
Ends = tuple[float | None, float | None, float | None]  # value, low, high


@dataclass(frozen=True)
class Point:
    """A tokenizer under a prior, or a codec at a quality."""

    name: str
    curve: str | None  # of a codec
    metrics: Mapping[str, Ends]


def points(runs: Sequence[Path], folders: Sequence[Path]) -> list[Point]:
    """The tokenizers of which there are both a prior and an evaluation, the fewest bits first; then codecs.

    A prior knows its tokenizer by the hash of its weights, by which an evaluation knows it too.

    Args:
        runs: run folders, of tokenizers and of priors.
        folders: in which evaluations of codecs may be, or in their `evaluation/`.
    """
    priors, tokenizers = {}, {}
    for run, name in zip(runs, names_of(runs) if runs else []):
        content = read_object(run, EVALUATION)
        sha256 = _tokenizer(content).get("sha256")
        if isinstance(sha256, str) and _metrics(content, ("bits_per_second",))["bits_per_second"][0] is not None:
            priors[name] = sha256, _metrics(content, COSTS)
        elif isinstance(sha256, str):
            tokenizers[sha256] = name, _metrics(content, QUALITIES)
    found = [
        Point(f"{tokenizers[sha256][0]} under {name}", None, {**costs, **tokenizers[sha256][1]})
        for name, (sha256, costs) in priors.items()
        if sha256 in tokenizers
    ]
    if not found:
        return []
    return [*sorted(found, key=lambda point: point.metrics["bits_per_second"][0] or 0.0), *_codecs(folders)]


def _codecs(folders: Sequence[Path]) -> Iterator[Point]:
    files = [file for folder in folders for part in (folder, folder / "evaluation") for file in part.glob("*.json")]
    for file in sorted(files)[:MOST_CODECS]:
        content = read_object(file.parent, file.name)
        curve = _tokenizer(content).get("curve")
        if isinstance(curve, str):
            name = str(_tokenizer(content).get("name", curve))[:100]
            yield Point(name, curve[:100], {**_metrics(content, UNITS), "bits_per_second": _bits_per_second(content)})


def _bits_per_second(content: Mapping[str, Any]) -> Ends:
    """Of a codec: the bits of all pixels by the seconds that they last."""
    data = _part(content, "data")
    frames, side, seconds = (number(data.get(key)) for key in ("frames", "resolution", "seconds"))
    if not frames or not side or not seconds:
        return None, None, None
    of_a_pixel = _metrics(content, ("bits_per_pixel",))["bits_per_pixel"]
    value, low, high = (None if bits is None else bits * frames * side**2 / seconds for bits in of_a_pixel)
    return value, low, high


def write(found: Sequence[Point], folder: Path) -> Path:
    """Write the plane into a folder, with its table beside; returns where the page is.

    Raises:
        StorageError: it cannot be written.
    """
    replace_text(folder / "rates.csv", as_csv(found))
    replace_text(folder / "rates.html", as_page(found))
    return folder / "rates.html"


def as_page(found: Sequence[Point]) -> str:
    """The plane, with its figures."""
    subjects = [{**asdict(one), "yardstick": one.curve is not None, "clips": None} for one in found]
    return page(subjects, UNITS, [BITS], BITS, rate="bits_per_second")


def as_csv(found: Sequence[Point]) -> str:
    """A row a point; of each figure its value and its interval."""
    text = io.StringIO()
    heads = [f"{name}{end}" for name in UNITS for end in ("", "_low", "_high")]
    rows = [[one.name, one.curve or "", *(end for name in UNITS for end in one.metrics[name])] for one in found]
    csv.writer(text, lineterminator="\n").writerows([["name", "curve", *heads], *rows])
    return text.getvalue()


def as_text(found: Sequence[Point]) -> str:
    """What a person reads in the terminal."""
    names = [name for name in UNITS if any(one.metrics[name][0] is not None for one in found)]
    lines = [["", *(f"{name} {UNITS[name]}".strip() for name in names)]]
    for one in found:
        values = (one.metrics[name][0] for name in names)
        lines.append([one.name, *("–" if value is None else f"{value:.4g}" for value in values)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _tokenizer(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return _part(content, "tokenizer")


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    protocol = content.get("protocol")
    found = protocol.get(name) if isinstance(protocol, dict) else None
    return found if isinstance(found, dict) else {}


def _metrics(content: Mapping[str, Any], names: Iterable[str]) -> dict[str, Ends]:
    measured = content.get("metrics")
    entries = measured if isinstance(measured, dict) else {}
    return {name: _ends(entries.get(name)) for name in names}


def _ends(entry: object) -> Ends:
    if not isinstance(entry, dict):
        return None, None, None
    return number(entry.get("value")), number(entry.get("low")), number(entry.get("high"))
