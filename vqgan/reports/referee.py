"""`evaluation.html`: what was measured of several tokenizers and others, and the same clips of all side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from vqgan.reports.page import PARTS, fill

SCRIPTS = tuple(PARTS / name for name in ("elements.js", "charts.js", "pictures.js", "moving.js", "referee.js"))


BITS = (
    "Bits of a tokenizer of this project are the entropy of its codes, of a codec its packets, of others what they "
    "counted."
)


def page(
    subjects: Sequence[Mapping[str, Any]],
    units: Mapping[str, str],
    remarks: Sequence[str],
    bits: str = BITS,
    rate: str = "bits_per_pixel",
) -> str:
    """The page.

    Args:
        subjects: each with `name`, the `curve` that it is a point of or None, `metrics` as value, low and high by name,
            `yardstick` if it is there for comparison alone, and `clips` by the hash of the original (`source`,
            `frames`, `psnr`, `original`, `made`), or None for none.
        units: of the metrics, in their order.
        remarks: what stands under the table.
        bits: what they are of.
        rate: the metric that quality is drawn over.
    """
    shown = [number for number, subject in enumerate(subjects) if subject["clips"] is not None]
    data = {
        "runs": [{key: value for key, value in subject.items() if key != "clips"} for subject in subjects],
        "shown": shown,
        "clips": side_by_side(
            [subjects[number]["clips"] for number in shown], [subjects[number]["yardstick"] for number in shown]
        ),
        "units": dict(units),
        "remarks": list(remarks),
        "bits": bits,
        "rate": rate,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "version": version("vqgan"),
    }
    return fill(title=f"{len(subjects)} tokenizers and others", data=data, scripts_of_page=SCRIPTS)


def side_by_side(clips: Sequence[Mapping[str, Any]], yardsticks: Sequence[bool]) -> list[dict[str, Any]]:
    """Each clip that any subject shows, with what every one made of it; first where they differ most in PSNR.

    Yardsticks do not count in that, if there are two others to compare.
    """
    counted = [not yardstick or yardsticks.count(False) < 2 for yardstick in yardsticks]
    together = []
    for key in dict.fromkeys(key for of_one in clips for key in of_one):
        found = [of_one.get(key) for of_one in clips]
        first = next(one for one in found if one is not None)
        levels = [one["psnr"] for one, counts in zip(found, counted) if one is not None and counts]
        together.append({
            "source": first["source"],
            "frames": first["frames"],
            "original": first["original"],
            "made": [None if one is None else {"strip": one["made"], "psnr": one["psnr"]} for one in found],
            "difference": max(levels) - min(levels) if levels else 0.0,
        })  # fmt: skip
    return sorted(together, key=lambda clip: -clip["difference"])
