"""A study as text: a table that fits into a terminal, why runs failed, and how to train the best one again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from vqgan.reports.importance import Importance
from vqgan.reports.study import Study, letters
from vqgan.reports.trial import WITHOUT_RESULT, Trial
from vqgan.reports.varied import short_names, short_value
from vqgan.text import printable

MOST_ROWS, MOST_REASONS = 40, 10  # the page has all of them
# Columns that are left out one after the other until the rest fits; after them, the keys that matter least.
SPARED = ("frames/s", "perplexity", "usage", "last", "time", "steps", "at step")
Columns = dict[str, list[str]]


def describe(study: Study, width: int) -> str:
    """All that a terminal shows of a study, in lines of at most so many characters where that is possible."""
    parts = [f"{study.counts}.{_varied(study)}", *_caution(study), _table(study, width), *_reasons(study, width)]
    parts.append(_importance(study))
    for trial in study.bests:
        best = trial.figures[study.metric]
        still = "" if trial.state == "finished" else f" ({trial.state})"
        reached = f"{study.metric} {best['best']:.4g} at step {best['best_step']:g}"
        head = "Best" if study.best is not None else f"Best on {study.letter(trial)}"
        parts.append(f"{head}: {printable(trial.name)}{still}, {reached}. To train it again:\n\n{trial.command()}")
    return "\n\n".join(part for part in parts if part)


def duration(hours: float | None) -> str:
    """Seconds, minutes or hours, whichever a person would say."""
    if hours is None:
        return "–"
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"


def _varied(study: Study) -> str:
    names = ", ".join(printable(key.name) for key in study.keys)
    return f" Varied: {names}." if names else " Nothing was varied."


def _caution(study: Study) -> list[str]:
    """What does not compare, and which data are which."""
    if study.caution is None:
        return []
    data = [f"  {letters(n)}: {printable(str(one))}" for n, one in enumerate(study.measured_on)]
    return ["\n".join([study.caution, *data])]


def _table(study: Study, width: int) -> str:
    trials = study.trials[:MOST_ROWS]
    keys = dict(zip([key.name for key in study.keys], short_names([key.name for key in study.keys])))
    values = {keys[key.name]: [short_value(value) for value in key.values[:MOST_ROWS]] for key in study.keys}
    columns: Columns = {
        "": ["*" if any(trial is best for best in study.bests) else "" for trial in trials],
        **({"on": [study.letter(trial) or "–" for trial in trials]} if study.caution else {}),
        "run": [short_value(trial.name) for trial in trials],
        **values,
        "state": [trial.state for trial in trials],
        "steps": [_steps(trial) for trial in trials],
        **_figures(study, trials),
        **_rates(trials),
        "usage": [_percent(trial.last("validation/usage", "codebook/usage")) for trial in trials],
        "perplexity": [_number(trial.last("validation/perplexity", "codebook/perplexity")) for trial in trials],
        "frames/s": [_number(trial.frames_per_second, 3) for trial in trials],
        "time": [duration(trial.hours) for trial in trials],
    }
    mattering = [keys[name] for one in study.importances for name in one.names]
    spared_keys = sorted(keys.values(), key=lambda name: mattering.index(name) if name in mattering else len(keys))
    left_out = _fit(columns, (*SPARED, *reversed(spared_keys)), width)
    lines = _lines(columns)
    more = len(study.trials) - len(trials)
    remarks = [f"{more} more runs"] * (more > 0) + [f"the columns {', '.join(left_out)}"] * bool(left_out)
    return "\n".join([*lines, *([f"(On the page: {' and '.join(remarks)}.)"] if remarks else [])])


def _figures(study: Study, trials: Sequence[Trial]) -> Columns:
    """The metric: its best value, the step of that, and the last one; those of failed runs too."""
    figures = [trial.figures.get(study.metric) for trial in trials]
    return {
        f"best {study.metric.rpartition('/')[2]}": [_number(figure and figure["best"]) for figure in figures],
        "at step": ["–" if figure is None else f"{figure['best_step']:g}" for figure in figures],
        "last": [_number(figure and figure["last"]) for figure in figures],
    }


def _rates(trials: Sequence[Trial]) -> Columns:
    """What tokens cost, where that is known of any run."""
    columns = {
        "tokens": [_number(trial.tokens) for trial in trials],
        "bits/px": [_number(trial.bits, 3) for trial in trials],
    }
    return columns if any(trial.bits is not None for trial in trials) else {}


def _fit(columns: Columns, spared: Sequence[str], width: int) -> list[str]:
    """Take columns out until the rest fits; returns which."""
    left_out = []
    for name in spared:
        if max(map(len, _lines(columns))) <= width:
            break
        left_out.append(name)
        del columns[name]
    return left_out


def _lines(columns: Mapping[str, Sequence[str]]) -> list[str]:
    rows = [list(columns), *map(list, zip(*columns.values()))]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _reasons(study: Study, width: int) -> list[str]:
    """Why runs came to nothing, each reason once with all the runs that it is of."""
    ended = [trial for trial in study.trials if trial.state in WITHOUT_RESULT]
    by_reason = sorted(ended, key=_reason)
    lines = []
    for reason, same in groupby(by_reason, key=_reason):
        names = ", ".join(printable(trial.name) for trial in same)
        line = f"{names}: {reason}"
        lines.append(line if len(line) <= 2 * width else f"{line[: 2 * width - 1]}…")
    if len(lines) > MOST_REASONS:
        lines[MOST_REASONS:] = [f"… and {len(lines) - MOST_REASONS} other reasons, on the page"]
    return ["\n".join(lines)] if lines else []


def _reason(trial: Trial) -> str:
    return f"{trial.state}: {printable(trial.reason)}"


def _importance(study: Study) -> str:
    if study.why_no_importance is not None:
        return f"Importance of what was varied: {study.why_no_importance}." if study.keys else ""
    lines = [["Importance", "explains", "by chance up to"]]
    lines += [[" + ".join(map(printable, one.names)), *_shares(one)] for one in study.importances]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _shares(one: Importance) -> tuple[str, str]:
    if one.share is None:
        return "too many different values to say", ""
    return f"{one.share:.0%}", f"{one.by_chance:.0%}"


def _steps(trial: Trial) -> str:
    if trial.step is None:
        return "0"
    return f"{trial.step:g}" if trial.steps is None or trial.step >= trial.steps else f"{trial.step:g}/{trial.steps:g}"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
