"""Reports of hostile run folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.hostile.attempts import CONFIG, Attempt
from tests.faults.hostile.honest import a_run
from tests.faults.hostile.spoilt_runs import METRICS, lead_to_itself, lead_to_zeros, make_folder, make_pipe


@pytest.mark.parametrize("name", METRICS)
def test_hostile_metrics_stop_no_report(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    (run / "metrics.jsonl").write_text(METRICS[name])
    ended = attempted("command", "report", run, writes=True)
    assert ended.code == 0, ended


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "codebook.jsonl", "config.yaml", "environment.json", "bad_files.jsonl"]
)
@pytest.mark.parametrize("make", [lead_to_zeros, make_pipe, lead_to_itself, make_folder])
def test_what_is_no_file_is_not_read_into_a_report(
    make: Callable[[Path], None], name: str, attempted: Attempt, world: Path
) -> None:
    run = a_run(world / "run")
    (run / name).unlink(missing_ok=True)
    make(run / name)
    ended = attempted("command", "report", run, writes=name != "metrics.jsonl")
    assert ended.code == (CONFIG if name == "metrics.jsonl" else 0), ended


@pytest.mark.parametrize("name", ["report.html", ".report.html"])
def test_a_report_is_not_written_over_what_a_link_leads_to(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    (world / "mine").write_text("mine")
    (run / name).symlink_to(world / "mine")
    assert attempted("command", "report", run, writes=True).code == 0
    assert (world / "mine").read_text() == "mine"
    assert (run / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_a_report_of_large_files_takes_little_memory(attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    for name in ("metrics.jsonl", "bad_files.jsonl", "config.yaml", "environment.json"):
        with (run / name).open("wb") as file:
            file.truncate(2**34)
    with (run / "codebook.jsonl").open("w") as rows:
        rows.writelines(
            json.dumps({"step": n, "codebook_size": 9, "dead": 1, "perplexity": 2, "shares": [0.1] * 999}) + "\n"
            for n in range(2000)
        )
    ended = attempted("command", "report", run, writes=True)
    assert ended.code == 0, ended
