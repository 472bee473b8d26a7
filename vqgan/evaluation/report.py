"""An evaluation as a file, a row and a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from vqgan.errors import ConfigError, RunFolderInUseError
from vqgan.evaluation.figures import UNITS, Metric
from vqgan.files.reading import read_object, read_whole
from vqgan.files.writing import replace_text, storing

# Columns of the protocol in `evaluation.csv`: section, key.
PROTOCOL_COLUMNS = (
    ("tokenizer", "name"), ("tokenizer", "sha256"), ("tokenizer", "step"), ("data", "root"), ("data", "fingerprint"),
    ("data", "split"), ("data", "videos"), ("data", "clips"), ("data", "frames"), ("data", "resolution"),
    ("data", "clip_frames"), ("data", "stride"), ("data", "fps"),
)  # fmt: skip
COLUMNS = [
    "time",
    *(key if section == "data" else f"{section}_{key}" for section, key in PROTOCOL_COLUMNS),
    *(f"{name}{end}" for name in UNITS for end in ("", "_low", "_high")),
]
DATA = ("split", "root", "fingerprint")  # of the protocol: what an evaluation is of
SAME = ("fingerprint", "split", "clips", "resolution", "clip_frames", "stride", "fps")  # or figures do not compare
LARGEST_TABLE = 2**26  # bytes
TURN = 60.0  # seconds to wait for a table that another evaluation adds its row to, which takes milliseconds
BAD_FILES = "evaluation_bad_files.jsonl"  # beside the report: what could not be used


@dataclass(frozen=True)
class Report:
    """What was measured, and all that it takes to measure it again."""

    metrics: Mapping[str, Metric]
    protocol: Mapping[str, Mapping[str, Any]]
    psnr_by_position: Sequence[float] = ()  # dB: of the first frames of all clips, of the second ones …


def write_json(report: Report, file: Path) -> None:
    """Write `evaluation.json`.

    Raises:
        StorageError: it cannot be written.
    """
    metrics = {name: asdict(metric) for name, metric in report.metrics.items()}
    content = {"metrics": metrics, "psnr_by_position": [*report.psnr_by_position], "protocol": report.protocol}
    replace_text(file, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def keep_other(report: Report, file: Path) -> None:
    """Before `evaluation.json` is written: one that is there already, on other data, stays under a name that says so.

    Raises:
        StorageError: it cannot be moved.
    """
    protocol = read_object(file.parent, file.name).get("protocol")
    before = protocol.get("data") if isinstance(protocol, dict) else None
    if not isinstance(before, dict) or all(before.get(key) == report.protocol["data"][key] for key in DATA):
        return
    name = "validation" if before.get("split") == "validation" else re.sub(r"\W", "_", str(before.get("root")))[:60]
    kept = file.with_name(f"{file.stem}-{name}{file.suffix}")
    with storing(kept):
        file.replace(kept)
    print(f"{file} was measured on other data; it is now {kept.name}.")


def rows_before(file: Path) -> str:
    """What a table of evaluations holds so far; nothing if there is none.

    Raises:
        ConfigError: it is something else.
    """
    try:
        content = read_whole(file, LARGEST_TABLE) if file.exists() else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a table of evaluations: {error}. Choose another --csv.") from None
    if content and content.partition("\n")[0].rstrip("\r") != ",".join(COLUMNS):
        raise ConfigError(f"{file} has other columns than an evaluation. Move it away, or choose another --csv.")
    return content


def add_row(report: Report, file: Path) -> None:
    """Append an evaluation to a table; its columns are always the same ones. Evaluations that end at once take turns.

    Raises:
        ConfigError: the file is something else.
        RunFolderInUseError: another process does not let go of it.
        StorageError: it cannot be written.
    """
    ends = [(metric.value, metric.low, metric.high) for metric in report.metrics.values()]
    row = [
        datetime.now(UTC).isoformat(timespec="seconds"),
        *(report.protocol[section].get(key) for section, key in PROTOCOL_COLUMNS),
        *(value for metric in ends for value in metric),
    ]
    with _held(file):
        before = rows_before(file)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([row] if before else [COLUMNS, row])
        gap = "\n" if before and not before.endswith("\n") else ""
        replace_text(file, before + gap + text.getvalue())


def _held(file: Path) -> AcquireReturnProxy[FileLock]:
    """A table that no other process writes to; for a `with` statement."""
    with storing(file):
        try:
            return FileLock(file.with_name(f".lock-{file.name}")).acquire(timeout=TURN)
        except Timeout:
            raise RunFolderInUseError(
                f"Another process has held {file} for {TURN:.0f} seconds. See what it does, or choose another --csv."
            ) from None


def table(reports: Sequence[Report]) -> str:
    """A column for each tokenizer, a row for each metric; below, what was not computed and what to bear in mind."""
    heads = [_head(report) for report in reports]
    lines = [["", *heads, ""], ["data", *(_measured_on(report) for report in reports), ""]]
    for name, unit in UNITS.items():
        lines.append([name, *(_cell(report.metrics[name]) for report in reports), unit])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
    return "\n".join([text, "", *_remarks(reports)])


def _head(report: Report) -> str:
    tokenizer = report.protocol["tokenizer"]
    step = "" if tokenizer["step"] is None else f", step {tokenizer['step']}"
    return f"{tokenizer['name']}{step}"


def _measured_on(report: Report) -> str:
    data = report.protocol["data"]
    return f"{data['frames']} frames of {data['videos']} files, {data['split']}"


def _cell(metric: Metric) -> str:
    if metric.value is None:
        return "not computed"
    value = f"{metric.value:.4g}"
    return value if metric.low is None else f"{value}  [{metric.low:.4g}, {metric.high:.4g}]"


def _remarks(reports: Sequence[Report]) -> list[str]:
    """Each reason once; and whether the columns are of the same data."""
    reasons: dict[str, None] = {}
    for report in reports:
        for name, metric in report.metrics.items():
            if metric.reason is not None:
                reasons[f"{name}{' not computed' if metric.value is None else ''}: {metric.reason}"] = None
        first, later = report.psnr_by_position[:1], report.psnr_by_position[1:]
        if later:
            lowest = min(range(len(later)), key=later.__getitem__)
            reasons[
                f"psnr of {_head(report)}: {first[0]:.4g} dB of a clip's first frame, {sum(later) / len(later):.4g} of "
                f"the others, lowest at frame {lowest + 2} of {1 + len(later)} ({later[lowest]:.4g})"
            ] = None
        data = report.protocol["data"]
        if data["bad_files"] or data["unreadable_clips"]:
            faults, lost = f"{data['bad_files']} files in {data['root']}", data["unreadable_clips"]
            reasons[f"{faults} have faults, {lost} clips are left out: see {BAD_FILES} beside the report"] = None
    differing = [key for key in SAME if len({str(report.protocol["data"].get(key)) for report in reports}) > 1]
    if differing:
        same = " ".join(f"data.{key}=…" for key in differing if key in ("resolution", "clip_frames", "stride", "fps"))
        advice = f" Give all of them the same: {same}." if same else ""
        reasons[f"These figures do not compare: the evaluations differ in {', '.join(differing)}.{advice}"] = None
    confidence = {report.protocol["settings"]["confidence"] for report in reports}
    has_interval = any(metric.low is not None for report in reports for metric in report.metrics.values())
    if has_interval:
        reasons[f"[low, high]: {confidence.pop():.0%} interval, by a bootstrap over files"] = None
    return list(reasons)
