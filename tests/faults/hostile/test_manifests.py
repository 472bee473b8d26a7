"""Manifests, links, devices: what stands beside a checkpoint, or in its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.hostile.attempts import CHECKPOINT, CONFIG, Attempt, tree
from tests.faults.hostile.honest import a_run, an_export, grown, signed, small
from tests.faults.hostile.spoilt_runs import METRICS, lead_to_itself, lead_to_zeros, make_folder, make_pipe
from tests.faults.hostile.torch_files import FILES, a_hostile_run
from vqgan.runs.checkpoint import _with_digest

MANIFESTS: dict[str, dict[str, Any]] = {
    "a step that is text": {"step": "1; touch marker"},
    "a step that is a fraction": {"step": 1.5},
    "a step without end": {"step": float("inf")},
    "a step that is no number": {"step": float("nan")},
    "a step below zero": {"step": -1},
    "a step of 4000 digits": {"step": 10**4000},
    "no step": {"step": None},
    "a list for a step": {"step": [1]},
    "true for a step": {"step": True},
    "files that climb out": {"files": {"../../marker": {"sha256": "", "bytes": 0}}},
    "a list of files": {"files": ["state.pt"]},
    "text for files": {"files": "state.pt"},
    "a list for a file": {"files": {"state.pt": ["sha256", "bytes"]}},
    "text for a size": {"files": {"state.pt": {"sha256": "", "bytes": "all"}}},
}
TEXTS: dict[str, str] = {
    "a list": "[1, 2]",
    "a number": "1",
    "nothing": "",
    "deep lists": "[" * 2**15 + "]" * 2**15,
    "deep dicts": '{"a":' * 10000 + "1" + "}" * 10000,
    "a hundred megabytes": '{"step": 1, "x": "HUGE"}',
    "a number of a million digits": '{"step": ' + "9" * 60000 + "}",
    "a digest for another text": _with_digest({"step": 1}).replace("1", "2", 1),
    "not utf-8": "\udcff",
}


@pytest.mark.parametrize("name", [*MANIFESTS, *TEXTS])
def test_a_hostile_manifest_is_refused(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    checkpoint = run / "checkpoints" / "step-00000001"
    if name in MANIFESTS:
        signed(checkpoint, **MANIFESTS[name])
    else:
        (checkpoint / "manifest.json").write_text(grown(TEXTS[name]), encoding="utf-8", errors="surrogateescape")
    for entry in (("load", run), ("latest", run / "checkpoints")):
        ended = attempted(*entry)
        assert ended.code == CHECKPOINT, (entry, ended)
        assert str(checkpoint) in ended.paragraph


@pytest.mark.parametrize(
    "score", [10**400, float("inf"), float("nan"), "high", [1], {"a": 1}], ids=lambda s: repr(s)[:10]
)
def test_a_hostile_score_stops_no_save(score: object, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    signed(run / "checkpoints" / "step-00000001", score=score)
    ended = attempted("save", run / "checkpoints", writes=True)
    assert (ended.code, ended.error) == (0, "")


def a_secret_folder(world: Path) -> Path:
    """Something of the user's, outside of the run."""
    folder = world / "of the user"
    folder.mkdir()
    (folder / "manifest.json").write_text("mine")
    (folder / "state.pt").write_text("mine")
    return folder


@pytest.mark.parametrize("link", ["best", "latest"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    link: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    outside = a_hostile_run(world / "outside", FILES["calls os.system"], marker) / "checkpoints" / "step-00000001"
    run = a_run(world / "run")
    (run / "checkpoints" / link).unlink()
    (run / "checkpoints" / link).symlink_to(outside)
    assert attempted("load", run).code == 0
    before = tree(outside)
    attempted("save", run / "checkpoints", writes=True)
    assert tree(outside) == before


@pytest.mark.parametrize(
    "name", ["step-00000000", "step-00000200", "step-00000001", ".unfinished-1", ".latest", ".unfinished-100"]
)
def test_a_checkpoint_that_is_a_link_costs_nothing_outside(name: str, attempted: Attempt, world: Path) -> None:
    run, outside = a_run(world / "run"), a_secret_folder(world)
    before = tree(outside)
    link = run / "checkpoints" / name
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(outside)
    attempted("latest", run / "checkpoints")
    attempted("save", run / "checkpoints", writes=True)
    assert tree(outside) == before


@pytest.mark.parametrize("make", [lead_to_zeros, make_pipe, lead_to_itself, make_folder])
@pytest.mark.parametrize("name", ["state.pt", "manifest.json", "config.yaml", "metrics.jsonl"])
@pytest.mark.slow
def test_what_is_no_file_is_not_read_from_a_run(
    make: Callable[[Path], None], name: str, attempted: Attempt, world: Path
) -> None:
    run = a_run(world / "run")
    checkpoint = run / "checkpoints" / "step-00000001"
    file = (run if name in ("config.yaml", "metrics.jsonl") else checkpoint) / name
    file.unlink()
    make(file)
    if name == "state.pt":
        signed(checkpoint)
    expected = {"config.yaml": (CONFIG, CHECKPOINT)}.get(name, (CHECKPOINT,))
    if name != "metrics.jsonl":
        ended = attempted("load", run)
        assert ended.code in expected, ended
        assert ended.paragraph
    ended = attempted("command", "export", run, "--out", world / "out", writes=name == "metrics.jsonl")
    assert ended.code in (*expected, *([0] if name == "metrics.jsonl" else [])), ended


@pytest.mark.parametrize("make", [lead_to_zeros, make_pipe, lead_to_itself, make_folder])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "discriminator.safetensors"])
@pytest.mark.slow
def test_what_is_no_file_is_not_read_from_an_export(
    make: Callable[[Path], None], name: str, attempted: Attempt, world: Path
) -> None:
    export = an_export(world / "export")
    (export / name).unlink(missing_ok=True)
    make(export / name)
    if name != "discriminator.safetensors":
        ended = attempted("load", export)
        assert ended.code == CHECKPOINT, ended
        assert ended.paragraph
    elif make is make_pipe:
        ended = attempted("command", "train", f"init_from={export}", f"run_dir={world}/new", *small(), writes=True)
        assert ended.code == CHECKPOINT, ended


@pytest.mark.parametrize("name", METRICS)
def test_hostile_metrics_stop_no_export(name: str, attempted: Attempt, world: Path) -> None:
    run = a_run(world / "run")
    (run / "metrics.jsonl").write_text(METRICS[name])
    ended = attempted("command", "export", run, "--out", world / "out", writes=True)
    assert ended.code == 0, ended
