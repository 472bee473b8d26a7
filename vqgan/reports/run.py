"""One run as the page shows it: everything that its folder says, as plain data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypedDict

from vqgan.files.reading import number, read_object, read_rows, read_text
from vqgan.reports.differences import Values, config_values, overrides, shown
from vqgan.reports.strips import Comparison, Extreme, Moment, Moving, Strips, spread
from vqgan.runs.criterion import Criterion, criterion_in
from vqgan.runs.metrics import FACTS, Curve, Metrics, read_metrics, speed_of
from vqgan.runs.status import state_of

BAD_FILES = "bad_files.jsonl"
MOST_ROWS = 1000  # of a table; more are counted
MOST_EVALUATIONS = 100  # whose use of codes is shown
MOST_RANKS, MOST_ADVICE = 1024, 30


class Table(TypedDict):
    """The first rows of a table, and how many there are."""

    rows: list[list[str]]
    total: int


class Figure(TypedDict):
    """What a metric came to."""

    name: str
    last: float
    best: float
    best_step: float


class Run(TypedDict):
    """All that the page knows of a run."""

    name: str
    label: str
    state: str
    step: float | None
    steps: float | None
    hours: float | None
    speed: str
    about: str  # the data, and what tokens cost
    figures: list[Figure]
    advice: list[list[str]]
    curves: dict[str, Curve]
    codebook: list[dict[str, Any]]
    strips: list[str]
    reconstructions: list[Comparison]
    made: str  # what these are
    evaluations: int
    extremes: dict[str, Extreme]
    moving: list[Moving]
    moment: Moment | None
    evaluation: list[list[str]]
    bad_files: Table
    skipped: Table
    overrides: list[str]
    config: str
    environment: list[list[str]]


def collect(folder: Path, name: str, state: str | None, points: int, pictures: int, budget: int) -> tuple[Run, Values]:
    """All of a run, and its config's values.

    Args:
        folder: of the run.
        name: what the page calls it.
        state: what has become of it; None to find out.
        points: of a curve, at most.
        pictures: evaluations whose reconstructions are shown, at most.
        budget: bytes that pictures may take.
    """
    metrics, values = read_metrics(folder), config_values(folder)
    steps, facts = steps_of(values), read_object(folder, FACTS)
    strips = Strips(folder, budget)
    extremes, moving, reconstructions = strips.extremes(), strips.moving(), strips.over_time(pictures)
    hours = [hour for hour in metrics.hours() if hour is not None]
    run: Run = {
        "name": name,
        "label": name,
        "state": state or state_of(folder, metrics.last_step(), steps),
        "step": metrics.last_step(),
        "steps": steps,
        "hours": hours[-1] if hours else None,
        "speed": speed_of(metrics),
        "about": _about(values, facts),
        "figures": list(figures(metrics, criterion_in(values), "validation/")),
        "advice": _advice(folder),
        "curves": metrics.curves(points),
        "codebook": _code_use(folder),
        "strips": strips.urls,
        "reconstructions": reconstructions,
        "made": "continuation" if is_prior(values) else "reconstruction",
        "evaluations": len(list((folder / "reconstructions").glob("step-*.png"))),
        "extremes": extremes,
        "moving": moving,
        "moment": strips.moment(),
        "evaluation": list(_evaluation(folder)),
        "bad_files": _table([text(row.get("path")), text(row.get("reason"))] for row in read_rows(folder, BAD_FILES)),
        "skipped": _table(_skipped(folder)),
        "overrides": overrides(folder),
        "config": read_text(folder, "config.yaml"),
        "environment": _environment(folder, facts),
    }
    return run, values


def _about(values: Values, facts: dict[str, Any]) -> str:
    """The data and what tokens cost, as far as a run says so."""
    kind, root, resolution = (
        shown(values.get(f"data.{key}", ""), values) for key in ("_target_", "root", "resolution")
    )
    where = f" in {Path(root).name}" if root else ""
    parts = [f"{kind.rpartition('.')[2]}{where}"] if kind else []
    parts += [f"{resolution} pixels"] if resolution else []
    clips, tokens, bits = (number(facts.get(key)) for key in ("training_clips", "tokens_per_frame", "bits_per_pixel"))
    parts += [] if clips is None else [f"{clips:.0f} clips to train on"]
    parts += [] if tokens is None else [f"{text(facts.get('fold', ''))}: {tokens:.4g} tokens a frame"]
    parts += [] if bits is None else [f"{bits:.3g} bits a pixel"]
    return ", ".join(parts)


def _environment(folder: Path, facts: dict[str, Any]) -> list[list[str]]:
    rows = [[key, text(value)] for key, value in read_object(folder, "environment.json").items()]
    return rows + ([["commit", text(facts["commit"])]] if facts.get("commit") else [])


def is_prior(values: Values) -> bool:
    """Whether the values of a run's config are a prior's."""
    return any(key.startswith("prior.") for key in values)


def text(value: object) -> str:
    """A value of a file as text, of a length that fits into a table."""
    return str(value)[:2000]


def steps_of(values: Values) -> float | None:
    """The steps that a config asks for."""
    value = values.get("trainer.steps")
    return number(int(value)) if value is not None and value.isdecimal() and len(value) < 16 else None


def figures(metrics: Metrics, objective: Criterion, panel: str = "") -> Iterator[Figure]:
    """What each metric of a panel came to, by default of all panels; those of which no value is known are left out."""
    for name, column in metrics.columns.items():
        known = column.numbers() if name.startswith(panel) else []
        if known:
            yield _figure(name, metrics, known, objective.is_higher_better(name))


def _figure(name: str, metrics: Metrics, known: Sequence[tuple[int, float]], higher_is_better: bool) -> Figure:
    # What was measured before the first step is no run's best, unless it is all there is.
    trained = [(row, value) for row, value in known if metrics.steps[row] > 0] or known
    choose = max if higher_is_better else min
    row, best = choose(trained, key=lambda pair: pair[1])
    return {"name": name, "last": known[-1][1], "best": best, "best_step": metrics.steps[row]}


def _code_use(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for row in read_rows(folder, "codebook.jsonl"):
        known = {name: number(row.get(name)) for name in ("step", "codebook_size", "dead", "perplexity")}
        shares = row.get("shares")
        if None not in known.values() and isinstance(shares, list):
            rows.append({**known, "shares": [number(share) for share in shares[:MOST_RANKS]]})
    return spread(rows, MOST_EVALUATIONS)


def _advice(folder: Path) -> list[list[str]]:
    rows = deque(read_rows(folder, "advice.jsonl"), MOST_ADVICE)
    return [[text(row.get("step", "")), text(row.get("name", "")), text(row.get("text", ""))] for row in rows]


def _evaluation(folder: Path) -> Iterator[list[str]]:
    """The rows of `vqgan evaluate`'s result: name, value, interval, remark."""
    content = read_object(folder, "evaluation.json")
    protocol = content.get("protocol")
    if isinstance(protocol, dict) and all(isinstance(protocol.get(key), dict) for key in ("data", "tokenizer")):
        data, step = protocol["data"], protocol["tokenizer"].get("step")
        amount = f"{text(data.get('frames'))} frames of {text(data.get('videos'))} files, {text(data.get('split'))}"
        reading = f"clips of {text(data.get('clip_frames'))} at {text(data.get('resolution'))} pixels"
        yield ["measured on", text(data.get("root")), "", f"{amount}, {reading}, step {text(step)}"]
    measured = content.get("metrics")
    for name, entry in measured.items() if isinstance(measured, dict) else ():
        if isinstance(entry, dict):
            value, low, high = (number(entry.get(key)) for key in ("value", "low", "high"))
            unit = text(entry.get("unit") or "")
            interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
            shown = "not measured" if value is None else f"{value:.4g} {unit}".strip()
            yield [text(name), shown, interval, text(entry.get("reason") or "")]


def _skipped(folder: Path) -> Iterator[list[str]]:
    for row in read_rows(folder, "skipped_batches.jsonl"):
        clips = row.get("clips")
        sources = [clip for clip in clips if isinstance(clip, dict)] if isinstance(clips, list) else []
        named = dict.fromkeys(text(clip.get("path")) for clip in sources)
        yield [text(row.get("step")), text(", ".join(named))]


def _table(rows: Iterable[list[str]]) -> Table:
    rows = iter(rows)
    shown = list(islice(rows, MOST_ROWS))
    return {"rows": shown, "total": len(shown) + sum(1 for _ in rows)}
