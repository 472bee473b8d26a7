"""What the page of several subjects shows of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vqgan.evaluation.gallery import Gallery
from vqgan.evaluation.report import Report


def page_entries(reports: Sequence[Report], galleries: Sequence[Gallery]) -> list[dict[str, Any]]:
    """Each subject's figures, and clips of all but the points of curves; of a curve those of one point.

    That is the one nearest in rate to the first tokenizer, or what else knows its own, or the middle one.
    """
    curves = [report.protocol["tokenizer"].get("curve") for report in reports]
    rates = [report.metrics["bits_per_pixel"].value for report in reports]
    others = [(is_yardstick(report), rate) for report, rate in zip(reports, rates) if rate]
    goal = next((rate for yardstick, rate in others if not yardstick), None)
    chosen = {n for n, curve in enumerate(curves) if curve is None}
    for curve in dict.fromkeys(curve for curve in curves if curve is not None):
        points = [n for n, of in enumerate(curves) if of == curve]
        if goal is None:
            chosen.add(points[len(points) // 2])
        else:
            chosen.add(min(points, key=lambda n: abs(math.log((rates[n] or math.inf) / goal))))
    return [_entry(report, gallery, n in chosen) for n, (report, gallery) in enumerate(zip(reports, galleries))]


def is_yardstick(report: Report) -> bool:
    """Whether it is there for comparison alone."""
    return bool(report.protocol["tokenizer"].get("yardstick"))


def _entry(report: Report, gallery: Gallery, shown: bool) -> dict[str, Any]:
    tokenizer = report.protocol["tokenizer"]
    return {
        "name": tokenizer["name"],
        "curve": tokenizer.get("curve"),
        "yardstick": is_yardstick(report),
        "metrics": {name: [metric.value, metric.low, metric.high] for name, metric in report.metrics.items()},
        "clips": {key: vars(clip) for key, clip in gallery.clips.items()} if shown else None,
    }
