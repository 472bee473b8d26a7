"""An evaluation as a file, a row and a table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout

from vqgan.errors import ConfigError, RunFolderInUseError
from vqgan.evaluation.figures import UNITS, Metric
from vqgan.files.reading import read_object, read_whole
from vqgan.files.writing import replace_text, storing
from vqgan.text import counted

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
COMPARED = ("psnr", "ssim", "lpips")  # with codecs
MOST_COLUMNS = 4  # of a table
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
    replace_text(file, json.dumps(_plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def as_json(reports: Sequence[Report], failed: Sequence[str]) -> str:
    """All of them in one document, with what is printed below their table."""
    content = {"evaluations": [_plain(report) for report in reports], "remarks": remarks(reports), "failed": [*failed]}
    return json.dumps(content, indent=1, allow_nan=False)


def _plain(report: Report) -> dict[str, Any]:
    metrics = {name: asdict(metric) for name, metric in report.metrics.items()}
    return {"metrics": metrics, "psnr_by_position": [*report.psnr_by_position], "protocol": report.protocol}


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


def table(reports: Sequence[Report], varied: Mapping[str, Sequence[str]] | None = None) -> str:
    """A column for each tokenizer, a row for each metric; of more than fit beside each other a row for each.

    Below, what was not computed and what to bear in mind.

    Args:
        reports: of what was measured.
        varied: what was varied in runs, by their names.
    """
    lines = _columns(reports, varied or {}) if len(reports) <= MOST_COLUMNS else _rows(reports, varied or {})
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
    return "\n".join([text, "", *remarks(reports)])


def _columns(reports: Sequence[Report], varied: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Values and intervals; that all are of the same data is said once, below."""
    of = [varied.get(_name(report), []) for report in reports]
    # A line for each choice, so that a column is no wider than its figures.
    choices = [["", *parts, ""] for parts in zip_longest(*of, fillvalue="")]
    lines = [["", *map(_head, reports), ""], *choices]
    if len(reports) == 1:
        lines.append(["data", *map(_measured_on, reports), ""])
    for name in _measured(reports):
        lines.append([name, *(_cell(report.metrics[name]) for report in reports), UNITS[name]])
    return lines


def _rows(reports: Sequence[Report], varied: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Values alone."""
    names = _measured(reports)
    lines = [["", *names, ""], ["", *(UNITS[name] for name in names), ""]]
    for report in reports:
        values = (report.metrics[name] for name in names)
        lines.append([_head(report), *map(_cell_value, values), ", ".join(varied.get(_name(report), []))])
    return lines


def _measured(reports: Sequence[Report]) -> list[str]:
    """The metrics that any of them has."""
    return [name for name in UNITS if any(report.metrics[name].value is not None for report in reports)]


def _name(report: Report) -> str:
    return str(report.protocol["tokenizer"]["name"])


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


def remarks(reports: Sequence[Report]) -> list[str]:
    """How all were measured, or where they differ; what to know of each; and each reason once."""
    reasons: dict[str, None] = dict.fromkeys(_protocol(reports) if len(reports) > 1 else [])
    for report in reports:
        tokenizer = report.protocol["tokenizer"]
        head = tokenizer.get("curve") or _head(report)
        reasons |= {f"{head}: {remark}": None for remark in tokenizer.get("remarks", [])}
    reasons |= dict.fromkeys(against_codecs(reports))
    reasons |= dict.fromkeys(_not_computed(reports))
    for report in reports:
        for name, metric in report.metrics.items():
            if metric.reason is not None and metric.value is not None:
                reasons[f"{name}: {metric.reason}"] = None
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
            reasons[
                f"{faults} have faults, {lost} clips are left out: see {BAD_FILES} beside the report of {_head(report)}"
            ] = None
    data_of_all = [report.protocol["data"] for report in reports]
    differing = [key for key in SAME if len({str(of.get(key)) for of in data_of_all}) > 1]
    if not differing and len({of.get("frames_sha256") for of in data_of_all}) > 1:
        differing = ["the frames' pixels"]
    if differing:
        same = " ".join(f"data.{key}=…" for key in differing if key in ("resolution", "clip_frames", "stride", "fps"))
        advice = f" Give all of them the same: {same}." if same else ""
        reasons[f"These figures do not compare: the evaluations differ in {', '.join(differing)}.{advice}"] = None
    confidence = {report.protocol["settings"]["confidence"] for report in reports}
    shown = len(reports) <= MOST_COLUMNS
    has_interval = shown and any(metric.low is not None for report in reports for metric in report.metrics.values())
    if has_interval:
        reasons[f"[low, high]: {confidence.pop():.0%} interval, by a bootstrap over files"] = None
    return list(reasons)


def _protocol(reports: Sequence[Report]) -> list[str]:
    """What was measured, by how many; and what was done to its pixels, where that is the same for all."""
    measured: dict[str, list[str]] = {}
    for report in reports:
        measured.setdefault(_measured_on(report), []).append(_head(report))
    most = max(measured.values(), key=len)
    lines = [f"{'all' if heads is most else ', '.join(heads)}: {what}" for what, heads in measured.items()]
    if len(lines) > 1:
        lines = [line.replace("all: ", "all others: ", 1) if line.startswith("all: ") else line for line in lines]
    pixels = {
        f"clips of {counted(of['clip_frames'], 'frame')}, {of['resize']} ({of['resolution']} pixels), "
        f"{of['crop']} crop, {of['values']}, in [-1, 1] for whoever works with floats; {_whose(of)}"
        for of in (report.protocol["data"] for report in reports)
    }
    return [*lines, *(pixels if len(pixels) == 1 else [])]


def _whose(data: Mapping[str, Any]) -> str:
    """Whose values of `data` all were measured with."""
    rate = "" if data.get("stride") is None else f" (data.stride={data['stride']})"
    rate = rate if data.get("fps") is None else f" (data.fps={data['fps']:g})"
    whose = "those of conf/data" if data.get("values_of") is None else f"those of {data['values_of']}"
    return f"sizes and times{rate} are {whose}, but for what was typed"


def _not_computed(reports: Sequence[Report]) -> list[str]:
    """Why metrics are missing: those for the same reason together, with what each needs."""
    by_reason: dict[str, dict[str, str]] = {}
    for report in reports:
        for name, metric in report.metrics.items():
            if metric.value is None and metric.reason is not None:
                before, colon, last = metric.reason.rpartition(": ")
                reason, needs = (before, last) if colon else (last, "")
                by_reason.setdefault(reason, {})[name] = needs
    lines = []
    for reason, found in by_reason.items():
        needs = " ".join(dict.fromkeys(filter(None, found.values())))
        lines.append(f"{', '.join(found)} not computed: {reason}{': ' * bool(needs)}{needs}")
    return lines


def against_codecs(reports: Sequence[Report]) -> list[str]:
    """What codecs have at the rate of each subject that knows its own."""
    curves: dict[str, list[Report]] = {}
    for report in reports:
        curves.setdefault(report.protocol["tokenizer"].get("curve") or "", []).append(report)
    others = curves.pop("", [])
    lines = []
    for report in others if curves else []:
        rate = report.metrics["bits_per_pixel"].value
        if not rate:
            continue
        found = {name: _at(rate, curves, name) for name in COMPARED if report.metrics[name].value is not None}
        said = [f"{name} {_cell_value(report.metrics[name])} ({', '.join(at)})" for name, at in found.items() if at]
        beyond = [f"{codec}'s points are {ends}" for codec, ends in _ranges(rate, curves)]
        lines.append(f"{_head(report)} at {rate:.4g} bit/pixel, and codecs at that rate: {', '.join(said + beyond)}")
    return lines


def _at(rate: float, curves: Mapping[str, Sequence[Report]], name: str) -> list[str]:
    """The figure of each codec whose points lie around a rate, between them on a logarithmic scale of rates."""
    found = []
    for codec, reports in curves.items():
        points = [(report.metrics["bits_per_pixel"].value, report.metrics[name].value) for report in reports]
        known = sorted((at, value) for at, value in points if at and value is not None)
        if known and known[0][0] <= rate <= known[-1][0]:
            value = np.interp(np.log(rate), np.log([at for at, _ in known]), [value for _, value in known])
            found.append(f"{codec} {value:.4g}")
    return found


def _ranges(rate: float, curves: Mapping[str, Sequence[Report]]) -> list[tuple[str, str]]:
    """Codecs whose points all lie on one side of a rate, and where."""
    found = []
    for codec, reports in curves.items():
        rates = [at for at in (report.metrics["bits_per_pixel"].value for report in reports) if at]
        if rates and not min(rates) <= rate <= max(rates):
            found.append(
                (codec, f"all above, from {min(rates):.2g}" if rate < min(rates) else f"all below, to {max(rates):.2g}")
            )
    return found


def _cell_value(metric: Metric) -> str:
    return "–" if metric.value is None else f"{metric.value:.4g}"
