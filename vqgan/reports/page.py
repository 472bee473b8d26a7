"""The page: runs' data in a template, with all that it needs inside it."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import json
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from vqgan.files.writing import replace_text
from vqgan.reports.differences import differing, typed_values
from vqgan.reports.healthy import healthy_for
from vqgan.reports.run import Run, collect
from vqgan.reports.strips import BUDGET, SPREAD
from vqgan.runs.saved import is_run

POINTS = 2000  # of a curve
ALL_POINTS = 8000  # of a metric's curves of all runs together
SHARE_OF_TIME = 0.02  # of a run, that its report may take
ROOM = 20  # times the page's size must be free while the run goes on, so that a checkpoint never lacks what it took
LONGEST_LABEL = 60  # characters
PARTS = Path(__file__).with_name("assets")
NAMES = ("elements.js", "charts.js", "curves.js", "codebook.js", "pictures.js", "moving.js", "tables.js", "start.js")
SCRIPTS = tuple(PARTS / name for name in NAMES)


def write_report(folder: Path, state: str | None = None) -> Path | None:
    """Write the report of the run in `folder` into it; None if it has no metrics yet.

    Args:
        folder: of the run.
        state: what has become of it; None to find out.

    Raises:
        StorageError: it cannot be written.
    """
    if not is_run(folder):
        return None
    target = folder / "report.html"
    replace_text(target, page([folder], state))
    return target


def page(folders: Sequence[Path], state: str | None = None) -> str:
    """The page of one run, or of several over each other; their state is found out unless it is known."""
    points = min(POINTS, ALL_POINTS // len(folders))
    pictures = max(2, SPREAD // len(folders))
    collected = [
        collect(folder, name, state, points, pictures, BUDGET // len(folders))
        for folder, name in zip(folders, names_of(folders))
    ]
    runs = [run for run, _ in collected]
    typed = differing([typed_values(run["overrides"]) for run in runs])
    _label(runs, typed)
    data = {
        "runs": runs,
        "typed": typed,
        "config": differing([values for _, values in collected]),
        "healthy": healthy_for([(run["overrides"], values) for run, values in collected]),
        "points": points,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "version": version("vqgan"),
    }
    return fill(title=", ".join(run["name"] for run in runs), data=data)


def fill(title: str, data: Any, scripts_of_page: Sequence[Path] = SCRIPTS) -> str:
    """The template with its scripts, style and data. Only scripts with these hashes run, whatever else gets into it."""
    scripts = {"plotly": plotly(), "script": "\n".join(file.read_text("utf-8") for file in scripts_of_page)}
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts.values())
    template = Template((PARTS / "page.html").read_text("utf-8"))
    return template.substitute(
        title=html.escape(title.encode("utf-8", "replace").decode()),
        hashes=hashes,
        style=(PARTS / "page.css").read_text("utf-8"),
        data=as_script(data),
        **scripts,
    )


def as_script(data: Any) -> str:
    """JSON that can stand in a script element: no `<` that could end it, nothing but ASCII."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def plotly() -> str:
    """The source of Plotly.js, from the Python package."""
    found = importlib.util.find_spec("plotly")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text("utf-8")


def names_of(folders: Sequence[Path]) -> list[str]:
    """What to call runs: the end of their paths, as far as they differ."""
    paths = [folder.resolve() for folder in folders]
    if len(paths) == 1:
        return ["/".join(paths[0].parts[-2:])]
    common = Path(os.path.commonpath(paths))
    return [path.relative_to(common).as_posix() for path in paths]


def _label(runs: Sequence[Run], typed: dict[str, list[str | None]]) -> None:
    """Name a run in legends by what was typed for it alone, if that is short."""
    for number, run in enumerate(runs):
        own = ", ".join(f"{key}={values[number]}" for key, values in typed.items() if values[number] is not None)
        if own and len(own) <= LONGEST_LABEL:
            run["label"] = f"{run['name']}: {own}"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


class LiveReport:
    """Rewrites a run's report while the run goes on, within a fiftieth of its time, and never ends it.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.next = 0.0  # by the clock of `time.monotonic`
        self.size = 2**23  # bytes of the last page; a guess at first

    def update(self) -> None:
        """Write it, unless the last time is too recent or the disk is nearly full."""
        began = time.monotonic()
        if began < self.next:
            return
        try:
            if shutil.disk_usage(self.folder).free > ROOM * self.size:
                target = write_report(self.folder, "running")
                self.size = target.stat().st_size if target is not None else self.size
        except Exception as error:  # a page that cannot be drawn is no reason to lose a run
            warnings.warn(f"The report cannot be written, and is tried again later: {error}", stacklevel=2)
        took = time.monotonic() - began
        self.next = began + took / SHARE_OF_TIME
