"""What the report collects from a run folder, whoever wrote it."""

from __future__ import annotations

import json
import math
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.written_run import (
    CLIPS,
    FRAMES,
    MOVING,
    ORIGINAL,
    RECONSTRUCTION,
    SIDE,
    ordinary_rows,
    write_config,
    write_lines,
    write_picture,
    write_run,
)
from vqgan.errors import StorageError
from vqgan.files.writing import replace_text
from vqgan.loggers.best import Best
from vqgan.reports import page as writing
from vqgan.reports.page import LiveReport, page, write_report
from vqgan.reports.run import Run, collect
from vqgan.reports.strips import Strips, open_picture, spread
from vqgan.runs.criterion import Criterion
from vqgan.runs.metrics import read_metrics, speed, thinned


def shown(folder: Path, state: str | None = None) -> Run:
    return collect(folder, "a run", state, points=100, pictures=5, budget=10**6)[0]


def embedded(text: str) -> Any:
    """The data in a page."""
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


# Curves


def test_metrics_are_read_column_by_column_with_gaps_where_there_is_no_number(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "time": 1.0, "train/total": 1.0},
        {"step": 1, "time": 2.0, "train/total": math.nan, "validation/psnr": 9},
        {"step": 2, "time": 3.0, "train/total": math.inf, "train/name": "text", "note": 3, "train/flag": True},
        {"no": "step"},
        {"step": 4, "validation/psnr": 10.0, "train/total": 10**400},
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1, 2]\n"text"\n' + "[" * 100_000 + '\n{"step": 5, "train/to')
    curves = read_metrics(tmp_path).curves(100)
    assert curves["train/total"] == {
        "steps": [0, 1, 2, 4], "hours": [0, round(1 / 3600, 9), round(2 / 3600, 9), None],
        "values": [1, None, None, None], "rows": 4,
    }  # fmt: skip
    assert curves["validation/psnr"]["values"] == [9, 10]
    assert set(curves) == {"train/total", "validation/psnr"}


def test_hours_stand_still_where_a_run_was_stopped(tmp_path: Path) -> None:
    times = [0, 60, 120, 120 + 86_400, 180 + 86_400, 170 + 86_400]  # stopped for a day; the clock was set back
    write_lines(tmp_path / "metrics.jsonl", [{"step": n, "time": time} for n, time in enumerate(times)])
    assert read_metrics(tmp_path).hours() == pytest.approx([0, 1 / 60, 2 / 60, 3 / 60, 4 / 60, 4 / 60], abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7, 100, 101, 5000])
def test_thinned_curves_keep_their_ends_and_their_peaks(count: int) -> None:
    values = [math.sin(n / 50) for n in range(count)]
    if count > 4000:
        values[1234], values[3210], values[4000] = 9.0, -9.0, math.nan
    kept = thinned(values, 100)
    assert len(kept) <= 102
    assert kept == sorted(set(kept))
    assert [kept[0], kept[-1]] == [0, count - 1] if count else kept == []
    if count <= 100:
        assert kept == list(range(count))
    if count > 4000:
        assert {1234, 3210} <= set(kept)
        gaps = [after - before for before, after in pairwise(kept)]
        assert max(gaps) <= 2 * 2 * count / 100


def test_a_stretch_without_numbers_stays_a_gap() -> None:
    assert thinned([1.0] * 50 + [math.nan] * 50, 10)[-1] == 99
    assert any(50 <= n < 99 for n in thinned([1.0] * 50 + [math.nan] * 50, 10))


def test_the_speed_is_said_in_words(tmp_path: Path) -> None:
    assert speed(tmp_path) == "nothing was trained"
    for wait, slower in {
        0.2: "the networks are the bottleneck",
        0.3: "the data are the bottleneck: see docs/speed.md",
    }.items():
        rows = [{"step": n, "speed/frames_per_second": 10 * n, "speed/data_wait": wait} for n in range(1, 4)]
        rows[-1]["step"] = 50
        write_lines(tmp_path / "metrics.jsonl", rows)
        assert speed(tmp_path) == f"25 frames/s, {wait:.1%} of the time waiting for data ({slower})"


def test_of_few_steps_it_is_not_said_what_is_slow(tmp_path: Path) -> None:
    rows = [{"step": step, "speed/frames_per_second": 3, "speed/data_wait": 0.9} for step in (2, 49)]
    write_lines(tmp_path / "metrics.jsonl", rows)
    assert speed(tmp_path).startswith("3 frames/s, 90.0% of the time waiting for data (of few steps")


def test_cores_that_reading_takes_are_said_although_nobody_waits(tmp_path: Path) -> None:
    rows = [
        {"step": n, "speed/frames_per_second": 10, "speed/data_wait": 0.001, "speed/reading": 0.46} for n in (1, 2, 50)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    assert "the networks are the bottleneck, and reading takes 46% of the cores" in speed(tmp_path)


# The state of a run


def test_state_and_figures_are_those_of_the_newest_row(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows())
    run = shown(folder)
    assert (run["state"], run["step"], run["steps"]) == ("finished", 100, 100)
    psnr = next(figure for figure in run["figures"] if figure["name"] == "validation/psnr")
    assert psnr == {"name": "validation/psnr", "last": 20, "best": 20, "best_step": 100}
    write_config(folder, {"trainer.steps": 200})
    assert shown(folder, "running")["state"] == "running"
    assert shown(folder)["state"] == "stopped"


def test_a_figure_that_is_a_distance_is_best_where_it_is_lowest(tmp_path: Path) -> None:
    rows = [
        {"step": n, "validation/lpips": value, "validation/psnr": value} for n, value in enumerate([0.5, 0.2, 0.3], 1)
    ]
    figures = {figure["name"]: figure["best"] for figure in shown(write_run(tmp_path / "run", rows))["figures"]}
    assert figures == {"validation/lpips": 0.2, "validation/psnr": 0.5}


def test_what_was_measured_before_the_first_step_is_no_best(tmp_path: Path) -> None:
    """Of a run that starts from a tokenizer it may well be the highest, and no checkpoint has it."""
    rows = [{"step": n, "validation/psnr": value} for n, value in ((0, 30.0), (5, 20.0), (9, 25.0))]
    (figure,) = shown(write_run(tmp_path / "run", rows))["figures"]
    assert (figure["best"], figure["best_step"]) == (25.0, 9)
    (figure,) = shown(write_run(tmp_path / "begun", rows[:1]))["figures"]
    assert (figure["best"], figure["best_step"]) == (30.0, 0), "it is all there is"

    best = Best()
    assert best.look(0, {"validation/psnr": 30.0, "validation/lpips": 0.1}) == {
        "validation/psnr": 30.0, "validation/lpips": 0.1, "best/step": 0,
    }  # fmt: skip
    best.look(5, {"validation/psnr": 20.0, "validation/lpips": 0.3})
    assert best.look(7, {"train/total": 1.0}) == {}
    found = best.look(9, {"validation/psnr": 25.0, "validation/lpips": 0.4})
    assert found == {"validation/psnr": 25.0, "validation/lpips": 0.3, "best/step": 9}


def test_the_objective_says_what_is_best(tmp_path: Path) -> None:
    rows = [{"step": n, "validation/perplexity": 5.0 + n} for n in (1, 2)]
    run = write_run(tmp_path / "run", rows, objective="-validation/perplexity")
    assert [(one["best"], one["best_step"]) for one in shown(run)["figures"]] == [(6.0, 1)]

    best = Best(Criterion("-validation/perplexity"))
    best.look(1, {"validation/psnr": 20.0, "validation/perplexity": 6.0})
    found = best.look(2, {"validation/psnr": 30.0, "validation/perplexity": 7.0})
    assert found == {"validation/psnr": 30.0, "validation/perplexity": 6.0, "best/step": 1}
    again = Best(Criterion("-validation/perplexity"))
    again.load_state_dict(best.state_dict())
    assert again.look(3, {"validation/perplexity": 9.0}) == found


def test_the_step_of_the_best_by_another_objective_is_forgotten() -> None:
    best = Best(Criterion("-validation/lpips"))
    best.load_state_dict({"validation/psnr": 30.0, "validation/lpips": 0.1, "best/step": 2})  # of 0.1
    found = best.look(3, {"validation/psnr": 20.0, "validation/lpips": 0.2})
    assert found == {"validation/psnr": 30.0, "validation/lpips": 0.2, "best/step": 3}


@pytest.mark.parametrize("state", ["finished", "stopped", "pruned", "diverged", "failed"])
def test_the_state_is_what_the_run_says_of_itself(tmp_path: Path, state: str) -> None:
    """Not what its rows look like: this one has all of its steps."""
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    (folder / "status.json").write_text(json.dumps({"state": state, "message": None, "exit_code": 1}))
    assert shown(folder)["state"] == state
    assert embedded(page([folder]))["runs"][0]["state"] == state


def test_a_folder_with_metrics_alone_is_shown(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "time": 1.0}])
    run = shown(tmp_path)
    assert run["curves"] == run["extremes"] == {}
    assert run["codebook"] == run["strips"] == run["environment"] == run["overrides"] == []
    assert write_report(tmp_path) == tmp_path / "report.html"


def test_a_folder_without_metrics_has_no_report(tmp_path: Path) -> None:
    assert write_report(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_data_and_what_tokens_cost_are_said(tmp_path: Path) -> None:
    values = {
        "data._target_": "vqgan.data.Videos",
        "data.root": "/home/me/zoo",
        "data.resolution": "${backbone.resolution}",
    }
    folder = write_run(tmp_path / "run", ordinary_rows(11), **values, **{"backbone.resolution": 64})
    facts = {"training_clips": 467, "fold": "f8", "tokens_per_frame": 64.0, "bits_per_pixel": 0.15625, "commit": "abc"}
    (folder / "facts.json").write_text(json.dumps(facts))
    run = shown(folder)
    assert run["about"] == "Videos in zoo, 64 pixels, 467 clips to train on, f8: 64 tokens a frame, 0.156 bits a pixel"
    assert ["commit", "abc"] in run["environment"]
    (folder / "facts.json").write_text('{"training_clips": "many", "commit": [1]}')
    assert shown(folder)["about"] == "Videos in zoo, 64 pixels"


def test_damaged_files_are_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    for name in ("config.yaml", "overrides.yaml", "environment.json", "evaluation.json"):
        (folder / name).write_bytes(b"\xff{]: [")
    for name in ("codebook.jsonl", "bad_files.jsonl", "skipped_batches.jsonl", "advice.jsonl"):
        (folder / name).write_text('{"step": 1, "clips": 3, "shares": "x"}\n\x00\n{')
    (folder / "reconstructions" / "step-00000050.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    run = shown(folder)
    assert [comparison["step"] for comparison in run["reconstructions"]] == [0, 100]
    assert run["codebook"] == []
    assert run["bad_files"] == {"rows": [["None", "None"]], "total": 1}
    embedded(page([folder]))


def test_what_others_have_left_is_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    write_lines(folder / "advice.jsonl", [{"step": 5, "name": "codes", "text": "few"}])
    distance = {"value": 1.23456, "low": 1, "high": 2, "unit": "", "reason": ""}
    measured = {"rFID": distance, "rFVD": {"value": None, "reason": "no"}}
    (folder / "evaluation.json").write_text(json.dumps({"metrics": measured}))
    write_lines(folder / "bad_files.jsonl", [{"path": f"{n}.mp4", "reason": "empty"} for n in range(1500)])
    write_lines(folder / "skipped_batches.jsonl", [{"step": 3, "clips": [{"path": "a", "clip": 1}, {"path": "b"}]}])
    run = shown(folder)
    assert run["advice"] == [["5", "codes", "few"]]
    assert run["evaluation"] == [["rFID", "1.235", "1 to 2", ""], ["rFVD", "not measured", "", "no"]]
    assert (len(run["bad_files"]["rows"]), run["bad_files"]["total"]) == (1000, 1500)
    assert run["skipped"]["rows"] == [["3", "a, b"]]


# Several runs


def test_only_what_differs_is_in_the_tables(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", ordinary_rows(11), model="emavq", run_dir="x"),
        write_run(tmp_path / "b", ordinary_rows(11), **{"model": "vqmodel", "run_dir": "y", "optimizer.lr": 0.1}),
    ]
    data = embedded(page(folders))
    assert data["typed"] == {"model": ["emavq", "vqmodel"], "optimizer.lr": [None, "0.1"]}
    assert data["config"] == {"model": ["emavq", "vqmodel"], "optimizer.lr": [None, "0.1"]}
    assert [run["name"] for run in data["runs"]] == ["a", "b"]
    assert [run["label"] for run in data["runs"]] == ["a: model=emavq", "b: model=vqmodel, optimizer.lr=0.1"]


# Pictures


def test_a_picture_is_taken_apart_and_originals_are_kept_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    write_picture(folder / "reconstructions" / "step-00000100.png", (0, 99, 0))
    strips = Strips(folder, budget=10**6)
    comparisons = strips.over_time(12)
    assert [comparison["step"] for comparison in comparisons] == [0, 50, 100]
    assert {comparison["clips"] for comparison in comparisons} == {CLIPS}
    assert len(strips.urls) == 3, "the originals, and two different reconstructions"
    assert comparisons[0]["original"] == comparisons[2]["original"]
    assert comparisons[0]["result"] != comparisons[2]["result"]
    picture = open_picture(folder, folder / "reconstructions" / "step-00000000.png")
    assert picture is not None
    assert [picture.getpixel((5, 5)), picture.getpixel((5, SIDE + 5))] == [ORIGINAL, RECONSTRUCTION]


def test_pictures_stay_within_their_budget_and_spread(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    for step in range(0, 101, 5):
        noise = Image.effect_noise((4 * SIDE, 2 * SIDE), 90 + step).convert("RGB")
        noise.save(folder / "reconstructions" / f"step-{step:08d}.png")
    everything = Strips(folder, budget=10**6)
    assert [c["step"] for c in everything.over_time(5)] == [0, 25, 50, 75, 100]
    some = Strips(folder, budget=everything.size // 3)
    steps = [c["step"] for c in some.over_time(5)]
    assert steps[0] == 0
    assert steps[-1] == 100
    assert len(steps) < 5
    assert some.size < everything.size


def test_clips_move_and_the_worst_moment_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    strips = Strips(folder, budget=10**6)
    moving = strips.moving()
    assert [(clip["frames"], clip["clip"]["source"]) for clip in moving] == [
        (FRAMES, "videos/clip 0.mp4"),
        (FRAMES, "videos/clip 1.mp4"),
    ]
    assert strips.moment() == {"frame": 2, "second": 1.25, "psnr": 7.5}
    assert len(Strips(folder, budget=1).moving()) == 1, "the worst one, whatever room there is"


@pytest.mark.parametrize(
    ("ranking", "clips"),
    [
        ({"moving": 7, "moment": []}, 0),
        ({"moving": [7], "moment": None}, 0),
        ({"moving": [{"source": 9}] * 10**4, "moment": {"frame": "x", "psnr": float("inf")}}, MOVING),
        ({}, 0),
    ],
)
def test_whatever_a_run_says_of_its_clips_there_is_a_page(ranking: dict[str, Any], clips: int, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    (folder / "reconstructions" / "ranking.json").write_text(json.dumps(ranking))
    (run,) = embedded(page([folder]))["runs"]
    assert len(run["moving"]) == clips


@pytest.mark.parametrize(("count", "most", "expected"), [(3, 5, [0, 1, 2]), (9, 3, [0, 4, 8]), (9, 1, [8]), (0, 3, [])])
def test_spread_keeps_the_ends(count: int, most: int, expected: list[int]) -> None:
    assert spread(range(count), most) == expected


def test_what_lies_outside_the_run_is_not_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    secret = tmp_path / "secret"
    secret.write_text("my own words")
    write_picture(tmp_path / "private.png", (1, 2, 3))
    for name, target in (("config.yaml", secret), ("environment.json", secret), ("bad_files.jsonl", secret)):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    (folder / "reconstructions" / "step-00000050.png").unlink()
    (folder / "reconstructions" / "step-00000050.png").symlink_to(tmp_path / "private.png")
    os.mkfifo(folder / "advice.jsonl")
    text = page([folder])
    assert "my own words" not in text
    assert [c["step"] for c in embedded(text)["runs"][0]["reconstructions"]] == [0, 100]


def test_a_bomb_of_a_picture_is_not_opened(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    for side in (6_000, 10_000, 20_000):
        Image.new("1", (side, side)).save(folder / "bomb.png")
        assert open_picture(folder, folder / "bomb.png") is None


# Writing


def test_text_from_a_run_cannot_leave_its_element(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--<script>\u2028\udcff"
    folder = write_run(tmp_path / evil.replace("/", "_").replace("\udcff", ""), ordinary_rows(11))
    write_lines(folder / "bad_files.jsonl", [{"path": evil, "reason": evil}])
    text = page([folder])
    assert embedded(text)["runs"][0]["bad_files"]["rows"] == [[evil, evil]]
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    text.encode("utf-8")


def test_a_link_in_the_way_leads_to_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".report.html").symlink_to(tmp_path / "mine")
    (tmp_path / "report.html").symlink_to(tmp_path / "mine")
    replace_text(tmp_path / "report.html", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "report.html").read_text() == "new"
    assert not (tmp_path / "report.html").is_symlink()


def test_a_live_report_is_written_rarely_and_never_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    target, live = folder / "report.html", LiveReport(folder)
    live.update()
    assert '"state":"running"' in target.read_text()
    target.unlink()
    live.update()
    assert not target.exists(), "it was written a moment ago"

    def full(*_: object, **__: object) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(writing, "write_report", full)
    with pytest.warns(UserWarning, match="tried again later: no room"):
        LiveReport(folder).update()


def test_a_live_report_leaves_a_disk_to_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(11))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**7}))
    LiveReport(folder).update()
    assert not (folder / "report.html").exists()
