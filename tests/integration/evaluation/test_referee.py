"""`vqgan evaluate` with others: one protocol, one table, one page, and no end at the first that fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands.test_command_line import Ended
from tests.integration.evaluation.test_evaluate import finished, make_videos, read, rows, trained, typed
from tests.integration.tokenizer.test_export import FEW, tokenizer_of
from tests.support.browser import Open, see_all, settled, with_browser
from vqgan.tokenizer.export import export

__all__ = ["finished", "trained", "typed"]  # fixtures

THEIRS = """
def dim(clips):
    return clips * 0.9, 100.0

def broken(clips):
    raise RuntimeError("no weights here")
"""
CODEC = ("codec:libx264", "codecs.libx264.qualities=[20,30,45]", "codecs.libx264.options={preset:ultrafast}")
QUICK = ("data.workers=0", "data.index=null")


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Videos, reconstructions of them, and a function."""
    make_videos(tmp_path / "mine")
    shutil.copytree(tmp_path / "mine", tmp_path / "copied")
    (tmp_path / "copied" / "1.mp4").unlink()
    (tmp_path / "theirs.py").write_text(THEIRS)
    return tmp_path


def test_all_kinds_in_one_table_and_one_page(typed: Callable[..., Ended], finished: Path, others: Path) -> None:
    ended = typed(
        "run", "python:theirs.py:dim", "python:theirs.py:broken", "videos:copied", "mean-colour", *CODEC,
        "--data", "mine", "data.clip_frames=4", *QUICK,
    )  # fmt: skip
    assert ended.code == 2
    assert ended.error == "7 of 8 are measured, and not python:theirs.py:broken: see above."
    assert "\nnot measured: python:theirs.py:broken ended with RuntimeError: no weights here." in ended.output
    names = [f"{others.name}/run", "python:theirs.py:dim", "videos:copied", "mean-colour"]
    points = [f"libx264 crf={quality}" for quality in (20, 30, 45)]
    lines = ended.output.split("\n\n")[1].splitlines()[2:]
    assert [line.partition("  ")[0].removesuffix(", step 1") for line in lines] == [*names, *points]
    assert "videos:copied: it has no counterpart of 1.mp4" in ended.output
    assert (
        "\nall others: 36 frames of 3 files, all files\nvideos:copied: 24 frames of 2 files, all files\n"
        in ended.output
    )
    assert "clips of 4 frames, shorter side to the resolution (16 pixels), center crop" in ended.output
    assert "These figures do not compare: the evaluations differ in clips." in ended.output
    assert [row["tokenizer_name"] for row in rows(others / "evaluation" / "evaluation.csv")] == [*names, *points][1:]
    own = read(finished / "evaluation.json")["protocol"]["data"]
    dim = read(others / "evaluation" / "python_theirs.py_dim.json")
    assert dim["protocol"]["data"] == own
    assert len(dim["protocol"]["tokenizer"]["sha256"]) == 64
    assert dim["metrics"]["bits_per_pixel"]["value"] == pytest.approx(200 / (36 * 16**2))  # two batches of 32 frames
    copied = read(others / "evaluation" / "videos_copied.json")
    assert copied["metrics"]["psnr"]["value"] == 100
    assert (copied["protocol"]["data"]["videos"], copied["protocol"]["data"]["unreadable_clips"]) == (2, 0)
    rates = [read(others / "evaluation" / f"libx264_crf={q}.json")["metrics"] for q in (20, 30, 45)]
    assert (
        rates[0]["bits_per_pixel"]["value"] > rates[1]["bits_per_pixel"]["value"] > rates[2]["bits_per_pixel"]["value"]
    )
    assert rates[0]["psnr"]["value"] > rates[2]["psnr"]["value"]
    assert (others / "evaluation" / "evaluation.html").stat().st_size > 2**20
    for file in (others / "evaluation").iterdir():
        assert str(others).encode() not in file.read_bytes(), file.name


def test_without_data_the_others_take_those_of_the_run(typed: Callable[..., Ended], finished: Path) -> None:
    ended = typed("mean-colour", "run", "--out", "all")
    assert ended.code == 0, ended.error
    theirs, ours = (
        read(finished.with_name("all") / name) for name in ("mean-colour.json", f"{finished.parent.name}_run.json")
    )
    assert theirs["protocol"]["data"] == ours["protocol"]["data"]
    assert theirs["protocol"]["data"]["split"] == "validation"
    assert theirs["metrics"]["psnr"]["value"] == pytest.approx(ours["metrics"]["psnr_mean_colour"]["value"], abs=0.05)
    assert not (finished / "evaluation.json").exists()
    assert (finished.with_name("all") / "evaluation.html").exists()


@pytest.mark.parametrize(
    "order", ["run shared clips theirs", "shared theirs clips run", "clips codec run", "shared clips"]
)
def test_all_subjects_get_the_same_frames(
    order: str, typed: Callable[..., Ended], finished: Path, others: Path
) -> None:
    """Whatever comes first, and whichever has data of its own; a tokenizer of clips takes what lengths there are."""
    config = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(config.replace("clip_frames: 1", "clip_frames: 6"))
    export(finished, others / "shared", "safetensors")
    tokenizer_of(others / "clips", "backbone=causal_tiny", *FEW)
    names = {"theirs": ("python:theirs.py:dim",), "codec": (CODEC[0], CODEC[1].replace("20,30,", ""), CODEC[2])}
    subjects = [argument for name in order.split() for argument in names.get(name, (name,))]
    ended = typed(*subjects, "--data", "mine", "--out", "all", *QUICK)
    assert ended.code == 0, ended.error
    reports = [read(file)["protocol"] for file in (others / "all").glob("*.json")]
    assert len(reports) == len(order.split())
    (data,) = {json.dumps(report["data"]) for report in reports}
    has_run = "run" in order
    found = json.loads(data)
    assert found["values_of"] == (f"{others.name}/run" if has_run else None)
    assert (found["clip_frames"], found["frames"]) == ((6, 36) if has_run else (4, 36))
    assert "do not compare" not in ended.output
    remark = "it takes 1 + 2·n frames: a clip's last one stands for 1 more, in its codes and bits alone"
    assert f"{others.name}/clips: {remark}" in ended.output
    assert f"are those of {f'{others.name}/run' if has_run else 'conf/data'}, but for what was typed" in ended.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mean-colour",), "What is measured is no run, so it has no data of its own; name a folder: --data DIR."),
        (("mean-colour", "--data", "mine"), "No tokenizer here says how large frames are: data.resolution=256"),
        (("codec:vp9", "--data", "mine"), "codec:vp9: there is no codec of that name. Choose from libx264, libx265"),
        (("codec:libx264", "codecs.libx264.qualities=5", "--data", "mine"), "codecs.libx264.qualities must be a list"),
        (("python:theirs.py:nothing", "--data", "mine"), "python:theirs.py:nothing: theirs.py has no function nothing"),
        (("videos:mine", "codec:libx264", "--out", "a.json", "--data", "mine"), "--out a.json is one file, and 2 "),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: tuple[str, ...], message: str, typed: Callable[..., Ended], others: Path
) -> None:
    resolution = [] if "resolution" in message or len(arguments) == 1 else ["data.resolution=16"]
    ended = typed(*arguments, *resolution, *(QUICK if len(arguments) > 1 else ()))
    assert (ended.code, ended.error[: len(message)]) == (2, message)
    assert not (others / "evaluation").exists()


@with_browser
def test_the_page_shows_the_same_clips_under_one_slider(
    typed: Callable[..., Ended], finished: Path, others: Path, opened: Open
) -> None:
    ended = typed(
        "run", "python:theirs.py:dim", "videos:copied", "mean-colour", *CODEC, "--data", "mine", "data.clip_frames=4",
        *QUICK,
    )  # fmt: skip
    assert ended.code == 0, ended.error
    tab = opened(others / "evaluation" / "evaluation.html")
    see_all(tab)
    clips = tab.locator(".clip")
    assert clips.count() == 9
    apart = [float(text.split("up to ")[1].split(" dB")[0]) for text in clips.locator("h3").all_inner_texts()]
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > apart[-1]
    tiles = clips.first.locator(".tile")
    captions = tiles.all_inner_texts()
    assert captions[0] == "original"
    assert [caption.split(",")[0].split(":")[-1] for caption in captions[1:]][-1].startswith("libx264 crf=")
    frame = tiles.nth(1).locator(".frame")

    def position() -> Any:
        return frame.evaluate("box => getComputedStyle(box).backgroundPositionX")

    assert position() == "0%"
    tab.get_by_role("slider", name="frame").focus()
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    settled(tab)
    assert position() == "100%"
    assert tab.locator(".controls output").inner_text() == "4 of 4"
    tab.get_by_role("checkbox").check()
    assert frame.evaluate("box => getComputedStyle(box).backgroundBlendMode").startswith("difference")
    assert tab.locator("#rates .js-plotly-plot").count() == 2
    assert "no counterpart of 1.mp4" in tab.locator("#figures").inner_text()
