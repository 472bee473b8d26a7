"""`report.html`: one page that shows a run, without a network or anything beside it."""

from __future__ import annotations

import base64
import html
import json
import platform
import statistics
from pathlib import Path

import torch

from vqgan.run_folder import replace_text

MUCH_WAITING = 0.03  # of the time, for data
WIDTH, HEIGHT, MARGIN = 420, 180, 34  # of a chart, in px
STYLE = """
:root { color-scheme: light dark; --line: #2563eb; --grid: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1320px; margin: 0 auto; padding: 1rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
img { max-width: 100%; height: auto; } svg text { fill: currentColor; font-size: 11px; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
pre { overflow-x: auto; }
"""


def write_report(folder: Path) -> Path | None:
    """Write the report of the run in `folder`; None if it has no metrics yet."""
    rows = _rows(folder)
    if not rows:
        return None
    title = html.escape("/".join(folder.resolve().parts[-2:]))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
{_figures(rows)}
<p>{html.escape(speed(folder))}</p>
{_pictures(folder)}
<h2>Curves</h2><div class="charts">{_charts(rows)}</div>
{_bad_files(folder)}
<h2>Config</h2><pre>{_text(folder / "config.yaml")}</pre>
<h2>Environment</h2>
<p>Python {platform.python_version()}, torch {torch.__version__}, {html.escape(platform.platform())}</p>
</body></html>
"""
    target = folder / "report.html"
    replace_text(target, page)
    return target


def speed(folder: Path) -> str:
    """How fast the run in `folder` trains, and which side the other one waits for; medians over the logged rows."""
    rows = [row for row in _rows(folder) if "speed/data_wait" in row]
    if not rows:
        return "nothing was trained"
    rate = statistics.median(row["speed/frames_per_second"] for row in rows)
    wait = statistics.median(row["speed/data_wait"] for row in rows)
    slower = (
        "the networks are the bottleneck" if wait < MUCH_WAITING else "the data are the bottleneck: try more workers"
    )
    return f"{rate:.3g} frames/s, {wait:.1%} of the time waiting for data ({slower})"


def _rows(folder: Path) -> list[dict[str, float]]:
    metrics = folder / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []


def _figures(rows: list[dict[str, float]]) -> str:
    names = sorted({name for row in rows for name in row if name.startswith("validation/")})
    body = ""
    for name in names:
        series = [(row["step"], row[name]) for row in rows if name in row]
        best = max(value for _, value in series)
        body += f"<tr><td>{name}</td><td>{series[-1][1]:.4g}</td><td>{best:.4g}</td></tr>"
    return f"<table><tr><th>at step {rows[-1]['step']}</th><th>last</th><th>highest</th></tr>{body}</table>"


def _pictures(folder: Path) -> str:
    pictures = sorted((folder / "reconstructions").glob("step-*.png"))
    if not pictures:
        return ""
    data = base64.b64encode(pictures[-1].read_bytes()).decode()
    return (
        "<h2>Reconstructions</h2><figure><figcaption>originals above, reconstructions below, "
        f"{pictures[-1].stem}</figcaption>"
        f'<img alt="originals and reconstructions" src="data:image/png;base64,{data}"></figure>'
    )


def _charts(rows: list[dict[str, float]]) -> str:
    names = sorted({name for row in rows for name in row if "/" in name})
    return "".join(_chart(name, [(row["step"], row[name]) for row in rows if name in row]) for name in names)


def _chart(name: str, points: list[tuple[float, float]]) -> str:
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]

    def x(step: float) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (step - first) / ((last - first) or 1)

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / ((high - low) or 1)

    line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
    edges = "".join(
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--grid)"/>'
        f'<text x="{MARGIN}" y="{y(v) + (-4 if v == high else 12):.1f}">{v:.4g}</text>'
        for v in dict.fromkeys((low, high))
    )
    steps = (
        f'<text x="{MARGIN}" y="{HEIGHT - 6}">{first:.0f}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 6}" text-anchor="end">step {last:.0f}</text>'
    )
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{edges}{steps}'
        f'<polyline points="{line}" fill="none" stroke="var(--line)" stroke-width="1.8"/></svg></figure>'
    )


def _bad_files(folder: Path) -> str:
    ledger = folder / "bad_files.jsonl"
    if not ledger.exists():
        return ""
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    body = "".join(f"<tr><td>{html.escape(e['path'])}</td><td>{html.escape(e['reason'])}</td></tr>" for e in entries)
    return f"<h2>Files that could not be used</h2><table>{body}</table>"


def _text(file: Path) -> str:
    return html.escape(file.read_text()) if file.exists() else ""
