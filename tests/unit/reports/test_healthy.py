"""Curves of healthy runs, which reports draw behind others of the same recipe."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.written_run import ordinary_rows, write_config, write_run
from vqgan.config.build import conf_dir
from vqgan.reports.healthy import DEFAULT, DEMO, KEPT, beside, command_of, healthy_for, recipe_of
from vqgan.reports.page import page
from vqgan.reports.run import collect

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "healthy.py"
TOKENIZER_S = {"backbone._target_": "vqgan.backbones.Shortcut"}
DRAWN = TOKENIZER_S | {"data._target_": "vqgan.data.SyntheticVideos"}
VIDEOS = TOKENIZER_S | {"data._target_": "vqgan.data.Videos"}


@pytest.mark.parametrize("file", sorted(KEPT.glob("*.json")), ids=lambda file: file.stem)
def test_what_is_kept_is_small_and_says_whose_it_is(file: Path) -> None:
    kept = json.loads(file.read_text())
    assert file.stat().st_size < 8_000
    assert file.stem == kept["recipe"]
    assert file.stem in (DEMO, DEFAULT) or (conf_dir() / "experiment" / f"{file.stem}.yaml").is_file()
    assert re.fullmatch("[0-9a-f]{40}", kept["commit"]), "of a tree without changes"
    assert kept["command"].startswith("python train.py")
    assert kept["data"]
    assert kept["machine"]
    assert kept["curves"].keys() >= {"validation/psnr", "train/pixel", "train/total", "codebook/usage"}
    for points in kept["curves"].values():
        assert 2 < len(points["steps"]) == len(points["values"]) <= 40
        assert points["steps"] == sorted(points["steps"])
    psnr, flat = (kept["curves"][name]["values"] for name in ("validation/psnr", "validation/psnr_mean_colour"))
    assert psnr[-1] > flat[-1] + 5, "healthy"


def test_there_are_some_of_the_recipes_of_minutes() -> None:
    assert {file.stem for file in KEPT.glob("*.json")} >= {
        DEMO, DEFAULT, "small", "small_f8", "small_f8_16384", "video_tiny"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "values", "recipe"),
    [
        ([], DRAWN, DEMO),
        (["trainer.steps=9"], VIDEOS, DEFAULT),
        (["data=videos", "experiment=small_f8"], VIDEOS, "small_f8"),
        (["+experiment=small_f8"], DRAWN, "small_f8"),
        ([], TOKENIZER_S | {"data._target_": "vqgan.data.Shards"}, DEFAULT),
        ([], TOKENIZER_S | {"data._target_": "vqgan.data.Images"}, None),
        ([], {"prior.layers": "2", "data._target_": "vqgan.data.Videos"}, None),
        ([], {}, None),
    ],
)
def test_the_recipe_is_what_was_typed(typed: list[str], values: dict[str, str], recipe: str | None) -> None:
    assert recipe_of(typed, values) == recipe


def test_only_runs_by_one_and_the_same_kept_recipe_have_it_behind_them() -> None:
    demo = healthy_for([(["seed=1"], DRAWN)])
    assert demo is not None
    assert demo["recipe"] == DEMO
    assert demo["said"].endswith("It was trained without seed=1.")
    both = healthy_for([([], DRAWN), (["seed=1"], DRAWN)])
    assert both is not None
    assert "without" not in both["said"]
    assert healthy_for([([], DRAWN), (["experiment=small_f8"], DRAWN)]) is None
    for name in ("nobody's", "../healthy/demo", ""):
        assert healthy_for([([f"experiment={name}"], DRAWN)]) is None


def test_places_and_trackers_make_no_other_run() -> None:
    typed = [
        "experiment=small",
        "data=videos",
        "data.root=/home/me/mine",
        "logger=none",
        "run_dir=x",
        "data.index=null",
    ]
    assert beside(typed) == []
    assert command_of(typed) == "python train.py experiment=small data=videos data.root=DIR"
    assert beside([*typed, "trainer.steps=9", "~loss.terms"]) == ["trainer.steps=9", "~loss.terms"]


def test_a_run_is_kept_in_few_points_and_its_own_report_draws_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows())
    write_config(folder, {})
    (folder / "overrides.yaml").write_text("[experiment=small, data.root=/home/me]")
    (folder / "config.yaml").write_text("{data: {_target_: vqgan.data.Videos}, backbone: {_target_: a.B}}")
    about = {"device": "cpu, AVX512", "threads (OMP_NUM_THREADS)": "1"}
    (folder / "environment.json").write_text(json.dumps(about))
    (folder / "facts.json").write_text(json.dumps({"commit": "a" * 40}))
    script = runpy.run_path(str(SCRIPT))
    kept: dict[str, Any] = script["keep"](folder, "these videos")
    assert kept["recipe"] == "small"
    assert kept["machine"] == "cpu, AVX512, threads: 1"
    total = kept["curves"]["train/total"]
    assert len(total["steps"]) <= 40
    rows = ordinary_rows()
    length = total["steps"][0] + 1  # of the first stretch, whose last step it is
    assert total["values"][0] == pytest.approx(sum(row["train/total"] for row in rows[:length]) / length, rel=1e-3)
    assert "speed/frames_per_second" not in kept["curves"]
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "small.json").write_text(json.dumps(kept))
    monkeypatch.setattr("vqgan.reports.healthy.KEPT", tmp_path / "kept")
    run, values = collect(folder, "a run", None, points=100, pictures=0, budget=0)
    healthy = healthy_for([(run["overrides"], values)])
    assert healthy is not None
    assert "these videos (cpu, AVX512, threads: 1; commit aaaaaaaaaaaa)" in healthy["said"]
    assert f'"healthy":{json.dumps(healthy, separators=(",", ":"))}' in page([folder])

    (folder / "overrides.yaml").write_text("[experiment=small, optimizer.lr=1]")
    with pytest.raises(SystemExit, match=r"no run of a recipe as it is: optimizer\.lr=1"):
        script["keep"](folder, "these videos")
