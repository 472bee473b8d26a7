"""The report as a person sees it: in a browser, without a network, by mouse, keyboard and finger."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Compose
from tests.support.browser import COLOURS, PHONE, Open, contrast, luminance, see_all, settled, with_browser
from tests.support.written_run import ordinary_rows, write_lines, write_run
from vqgan import commands
from vqgan.commands.report import report
from vqgan.errors import ConfigError, StorageError
from vqgan.reports.page import write_report
from vqgan.training.run import run


def lines_of(tab: Any, title: str) -> list[str]:
    """The paths that a chart draws, the faint ones first."""
    chart = tab.locator(f".chart[aria-label='chart of {title}']")
    chart.scroll_into_view_if_needed()
    chart.locator(".scatterlayer").wait_for(state="attached")
    found: list[str] = chart.evaluate(
        "box => [...box.querySelectorAll('.js-line')].map((line) => line.getAttribute('d'))"
    )
    return found


def slider(tab: Any, name: str, part: str = "main") -> Any:
    return tab.locator(part).get_by_role("slider", name=name, exact=True)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The report of a run with everything in it."""
    folder = write_run(tmp_path / "a run", ordinary_rows())
    write_lines(folder / "bad_files.jsonl", [{"path": "videos/broken.mp4", "reason": "no video stream"}])
    write_lines(folder / "advice.jsonl", [{"step": 50, "name": "codes", "text": "few are used"}])
    target = write_report(folder)
    assert target is not None
    return target


# A real run


@with_browser
def test_the_report_of_a_real_run_draws_all_that_was_measured(composed: Compose, tmp_path: Path, opened: Open) -> None:
    run(
        composed("trainer.steps=6", "trainer.log_every=1", "trainer.evaluate_every=3", "loss.discriminator_start=2"),
        ["seed=0"],
    )
    folder = tmp_path / "run"
    assert [json.loads(line)["step"] for line in (folder / "codebook.jsonl").read_text().splitlines()] == [0, 3, 6]
    tab = opened(folder / "report.html")
    see_all(tab)
    charts = set(tab.evaluate("charts.map((chart) => chart.box.getAttribute('aria-label').replace('chart of ', ''))"))
    assert charts >= {
        "train/total", "validation/psnr", "validation/ssim", "adversarial/weight", "adversarial/logits",
        "codebook/perplexity", "codebook/usage", "codebook/dead", "learning_rate", "speed/frames_per_second",
        "speed/data_wait", "shares of all choices, by rank",
    }  # fmt: skip
    assert tab.locator(".badge").inner_text() == "finished"
    assert "step 6 of 6" in tab.locator("#summary").inner_text()
    assert tab.locator("#reconstructions .frame").count() == 2
    assert tab.locator("#extremes .frame").count() == 4
    assert "seed=0" in tab.locator("#config").inner_text()
    assert "torch" in tab.locator("#environment").inner_text()
    ranking = json.loads((folder / "reconstructions" / "ranking.json").read_text())
    assert ranking["step"] == 6
    assert ranking["worst"] == ranking["best"][::-1], "there are two clips"
    assert all(Path(clip["source"]).suffix == ".mp4" for clip in ranking["worst"])
    assert ranking["worst"][0]["psnr"] <= ranking["worst"][1]["psnr"]


def test_the_report_is_there_while_the_run_goes_on(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqgan.training.step import Step

    seen = []
    original = Step.__call__

    def look(self: Step, step: int, clips: Any) -> Any:
        seen.append((tmp_path / "run" / "report.html").read_text())
        return original(self, step, clips)

    monkeypatch.setattr(Step, "__call__", look)
    run(composed("trainer.steps=2"))
    assert '"state":"running"' in seen[0]
    assert '"state":"finished"' in (tmp_path / "run" / "report.html").read_text()


# What a reader does


@with_browser
def test_the_border_and_time_move_by_mouse_and_by_keyboard(written: Path, opened: Open) -> None:
    tab = opened(written)
    border, time = slider(tab, "original to reconstruction", "#reconstructions"), slider(tab, "time")
    result = tab.locator("#reconstructions .strip.result").first
    clip = "element => getComputedStyle(element).clipPath"
    assert result.evaluate(clip) == "inset(0px 0px 0px 50%)"
    border.focus()
    tab.keyboard.press("ArrowRight")
    assert result.evaluate(clip) == "inset(0px 0px 0px 51%)"
    assert border.get_attribute("aria-valuetext") == "51 % original"
    tab.keyboard.press("Home")
    before = tab.locator("#reconstructions .frame").first.screenshot()
    tab.keyboard.press("End")
    assert tab.locator("#reconstructions .frame").first.screenshot() != before, "first the one picture, then the other"
    frame = tab.locator("#reconstructions .frame").nth(1)
    box = frame.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20, steps=3)
    tab.mouse.up()
    assert 22 <= int(border.input_value()) <= 28
    assert result.evaluate(clip) == f"inset(0px 0px 0px {border.input_value()}%)"
    assert time.get_attribute("aria-valuetext") == "step 100, 20 dB"
    time.focus()
    tab.keyboard.press("ArrowLeft")
    assert time.get_attribute("aria-valuetext") == "step 50, 15 dB"


@with_browser
def test_clips_play_and_stop_at_the_worst_moment(written: Path, opened: Open) -> None:
    tab = opened(written)
    clips = tab.locator("#clips")
    assert clips.locator(".frame").count() == 4, "two originals, each beside its reconstruction"
    assert "Worst moment: 7.5 dB in clip 0.mp4, at 1.25 s, frame 3 of 5 of clip 0" in clips.inner_text()
    frame = slider(tab, "frame", "#clips")
    seen = {frame.get_attribute("aria-valuetext")}
    for _ in range(100):
        seen.add(frame.get_attribute("aria-valuetext"))
        tab.wait_for_timeout(25)
    assert len(seen) > 2, "they play by themselves"
    clips.get_by_role("button", name="worst moment").click()
    assert frame.get_attribute("aria-valuetext") == "3 of 5"
    third = clips.locator(".frame").first.screenshot()
    frame.focus()
    tab.keyboard.press("ArrowRight")
    assert frame.get_attribute("aria-valuetext") == "4 of 5"
    assert clips.locator(".frame").first.screenshot() != third, "the original moves"
    clips.get_by_role("button", name="play").click()
    clips.get_by_role("button", name="stop").click()


@with_browser
def test_smoothing_scale_and_axis_change_the_curves(written: Path, opened: Open) -> None:
    tab = opened(written)
    first = lines_of(tab, "train/total")
    assert len(first) == 2, "the raw line behind, the smoothed one before it"
    smoothing = slider(tab, "smoothing")
    smoothing.focus()
    tab.keyboard.press("End")
    settled(tab)
    smoother = lines_of(tab, "train/total")
    assert smoother[0] == first[0]
    assert smoother[1] != first[1]
    tab.keyboard.press("Home")
    settled(tab)
    assert lines_of(tab, "train/total") == [first[0]]
    tab.get_by_label("logarithmic y").check()
    settled(tab)
    assert lines_of(tab, "train/total") != [first[0]]
    tab.get_by_label("x-axis").select_option("hours")
    settled(tab)
    assert "hours" in tab.locator(".chart[aria-label='chart of train/total']").inner_text()


@with_browser
def test_a_healthy_run_of_the_recipe_lies_behind_and_can_be_hidden(tmp_path: Path, opened: Open) -> None:
    folder = write_run(tmp_path / "run", ordinary_rows(), experiment="small_f8")
    target = write_report(folder)
    tab = opened(target)
    assert "Grey: a healthy run, python train.py experiment=small_f8 " in tab.locator("#curves").inner_text()
    assert len(lines_of(tab, "train/total")) == 3, "the healthy run's behind the raw line and the smoothed one"
    tab.get_by_label("healthy run").uncheck()
    settled(tab)
    assert len(lines_of(tab, "train/total")) == 2
    tab.get_by_label("healthy run").check()
    tab.get_by_label("x-axis").select_option("hours")
    settled(tab)
    assert len(lines_of(tab, "train/total")) == 2, "hours are another machine's"


@with_browser
def test_a_constant_is_a_flat_line(written: Path, opened: Open) -> None:
    tab = opened(written)
    lines_of(tab, "learning_rate")
    low, high = tab.locator(".chart[aria-label='chart of learning_rate']").evaluate(
        "box => box._fullLayout.yaxis.range"
    )
    assert low < 0.98e-3
    assert high > 1.02e-3


@with_browser
def test_a_zoom_shows_the_same_part_in_all_charts(written: Path, opened: Open) -> None:
    tab = opened(written)
    see_all(tab)
    ranges = (
        "[...document.querySelectorAll('#curves .chart')].map((chart) => chart._fullLayout.xaxis.range.map(Math.round))"
    )
    assert {tuple(each) for each in tab.evaluate(ranges)} == {(-2, 102)}
    plot = tab.locator(".chart[aria-label='chart of train/total'] .nsewdrag")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=5)
    tab.mouse.up()
    tab.wait_for_timeout(400)
    see_all(tab)
    (shown,) = {tuple(each) for each in tab.evaluate(ranges)}
    assert 20 <= shown[0] <= 28
    assert 46 <= shown[1] <= 54
    assert slider(tab, "from").input_value() == str(shown[0])
    slider(tab, "to").focus()
    tab.keyboard.press("End")
    settled(tab)
    see_all(tab)
    assert {tuple(each)[1] for each in tab.evaluate(ranges)} == {100}
    tab.get_by_role("button", name="whole run").click()
    settled(tab)
    see_all(tab)
    assert {tuple(each) for each in tab.evaluate(ranges)} == {(-2, 102)}


@with_browser
def test_the_use_of_codes_is_shown_through_time(written: Path, opened: Open) -> None:
    tab = opened(written)
    assert "At step 100: 3 of 16 codes never chosen" in tab.locator("#codebook").inner_text()
    slider(tab, "evaluation").focus()
    tab.keyboard.press("Home")
    assert "At step 0: 13 of 16 codes never chosen, perplexity 3." in tab.locator("#codebook").inner_text()
    assert len(lines_of(tab, "codebook/dead")) == 1


@with_browser
def test_everything_can_be_reached_by_keyboard_and_has_a_name(written: Path, opened: Open) -> None:
    tab = opened(written)
    named = "(e) => e.getAttribute('aria-label') || e.textContent || e.labels?.[0]?.textContent"
    unnamed = tab.evaluate(
        f"[...document.querySelectorAll('input, select, button')].filter((e) => !({named})(e)).length"
    )
    assert unnamed == 0
    see_all(tab)
    reached = set()
    for _ in range(80):
        tab.keyboard.press("Tab")
        reached.add(
            tab.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
    assert {
        "original to reconstruction",
        "time",
        "smoothing",
        "x-axis",
        "from",
        "to",
        "whole run",
        "evaluation",
    } <= reached


# Where it is read


@with_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways_in_both_schemes(written: Path, opened: Open, scheme: str) -> None:
    tab = opened(written, PHONE, scheme)
    see_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    wide = tab.evaluate(
        "[...document.querySelectorAll('main > section')].filter((part) => part.scrollWidth > innerWidth).length"
    )
    assert wide == 0
    background = luminance(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert background < 0.05 if scheme == "dark" else background > 0.9
    for selector in ("body", ".faint", "nav a", ".badge", "figcaption", "td", "pre", "footer", "button"):
        colours = tab.locator(selector).first.evaluate(COLOURS)
        assert contrast(*map(luminance, colours)) >= 4.5, (selector, colours)
    ticks = tab.locator(".chart .xtick text").first.evaluate("element => getComputedStyle(element).fill")
    assert contrast(luminance(ticks), background) >= 4.5
    for line in tab.evaluate("[...document.querySelectorAll('.js-line')].map((line) => getComputedStyle(line).stroke)"):
        assert contrast(luminance(line), background) >= 3


@with_browser
def test_charts_follow_a_change_of_the_scheme(written: Path, opened: Open) -> None:
    tab = opened(written)
    lines_of(tab, "train/total")
    stroke = "getComputedStyle(document.querySelector('.chart .js-line')).stroke"
    before = tab.evaluate(stroke)
    tab.emulate_media(color_scheme="dark")
    settled(tab)
    assert luminance(tab.evaluate(stroke)) > luminance(before)


# Odd and hostile runs


ODD = {
    "one row": [{"step": 0, "time": 1.0, "train/total": 1.0}],
    "two rows": ordinary_rows(2),
    "no number at all": [{"step": n, "time": 1.0, "train/total": float("nan")} for n in range(30)],
    "keys that come and go": [{"step": n, f"train/{n % 3}": n} for n in range(60)],
    "steps that go back": [*ordinary_rows(50), *ordinary_rows(20)],
    "zero and below": [{"step": n, "train/total": n - 30} for n in range(60)],
}


@pytest.mark.slow
@with_browser
@pytest.mark.parametrize("name", ODD)
def test_odd_rows_are_drawn_as_far_as_they_go(name: str, tmp_path: Path, opened: Open) -> None:
    target = write_report(write_run(tmp_path / "run", ODD[name]))
    assert target is not None
    tab = opened(target)
    tab.get_by_label("logarithmic y").check()
    tab.get_by_label("x-axis").select_option("hours")
    see_all(tab)
    assert tab.locator(".chart .main-svg").count() >= 3


ATTACK = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1><a href='https://evil.example'>x</a>"
)


@with_browser
@pytest.mark.parametrize("several", [False, True])
def test_nothing_that_a_run_says_is_executed_or_fetched(several: bool, tmp_path: Path, opened: Open) -> None:
    rows = [
        row | {f"train/{ATTACK[:90]}": 1.0, "validation/<b>x": 2.0, "__proto__/x": 1.0} for row in ordinary_rows(30)
    ]
    folders = []
    for number in range(2):
        name = f"{number}<img src=x onerror=alert(1)>"
        folder = write_run(tmp_path / name, rows, name=ATTACK, optimizer=f"{number}{ATTACK}")
        write_lines(folder / "bad_files.jsonl", [{"path": ATTACK, "reason": ATTACK}])
        write_lines(folder / "advice.jsonl", [{"step": ATTACK, "name": ATTACK, "text": ATTACK}])
        write_lines(folder / "skipped_batches.jsonl", [{"step": ATTACK, "clips": [{"path": ATTACK}]}])
        (folder / "environment.json").write_text(json.dumps({ATTACK: ATTACK}))
        clips = [{"clip": 0, "source": ATTACK, "psnr": 1.0}] * 4
        (folder / "reconstructions" / "ranking.json").write_text(json.dumps({"step": 1, "worst": clips, "best": clips}))
        folders.append(folder)
    tab = opened(report(folders if several else folders[:1], tmp_path / "page.html"))
    see_all(tab)
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img, main a").count() == 0
    assert tab.locator("#files").inner_text().count(ATTACK) >= 2, "it is shown as what it is"


@with_browser
def test_another_script_would_not_run(written: Path, browser: Any, tmp_path: Path) -> None:
    """The second wall: if text did get out of its element, the policy in the page's head would stop it."""
    text = written.read_text().replace("<noscript>", "<script>window.hacked = 1</script><noscript>", 1)
    (tmp_path / "page.html").write_text(text)
    tab, said = browser.new_page(), []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("footer")
    assert tab.evaluate("window.hacked") is None
    assert [line for line in said if "Content Security Policy" in line] != []
    tab.close()


# Several runs, and the command


@with_browser
def test_several_runs_lie_over_each_other_with_what_differs(tmp_path: Path, opened: Open) -> None:
    folders = [
        write_run(tmp_path / f"lr {lr}", ordinary_rows(), **{"optimizer.lr": lr, "model": "emavq"}) for lr in (0.1, 0.2)
    ]
    tab = opened(report(folders, tmp_path / "both.html"))
    assert len(lines_of(tab, "train/total")) == 4, "two runs, raw and smoothed"
    cells = tab.locator("#differences table").first.locator("th, td").all_inner_texts()
    assert cells == ["", "lr 0.1", "lr 0.2", "optimizer.lr", "0.1", "0.2"]
    assert tab.locator("#summary tbody tr").count() == 2
    strokes = set(tab.evaluate("[...document.querySelectorAll('.chart .js-line')].map((line) => line.style.stroke)"))
    assert len(strokes) >= 2
    tab.get_by_role("button", name="lr 0.2").click()
    settled(tab)
    assert len(lines_of(tab, "train/total")) == 2
    tab.locator("#reconstructions").get_by_label("run").select_option("1")
    assert tab.locator("#reconstructions .frame").count() == 4
    see_all(tab)


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """`vqgan ARGUMENTS`; the exit code."""
    monkeypatch.setattr(sys, "argv", ["vqgan", *map(str, arguments)])
    try:
        commands.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_takes_runs_and_folders_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one = write_run(tmp_path / "sweep" / "1", ordinary_rows(20))
    assert typed(monkeypatch, "report", one) == 0
    assert capsys.readouterr().out == f"{one / 'report.html'}\n"
    write_run(tmp_path / "sweep" / "2", ordinary_rows(20))
    (one / "wandb" / "files").mkdir(parents=True)
    (one / "wandb" / "files" / "metrics.jsonl").touch()
    assert typed(monkeypatch, "report", "sweep", one) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    text = (tmp_path / "report.html").read_text()
    assert text.count('"state":') == 2
    assert typed(monkeypatch, "report", "sweep") == 0
    assert (tmp_path / "sweep" / "report.html").read_text().count('"state":') == 2
    assert typed(monkeypatch, "report", one, "--out", "page.html") == 0
    assert (tmp_path / "page.html").read_text().count('"state":') == 1
    assert typed(monkeypatch, "report", "--help") == 0
    assert "example:\n  vqgan report" in capsys.readouterr().out


def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "report", tmp_path) == 2
    assert f"{tmp_path} is no run folder and holds none" in capsys.readouterr().err
    for number in range(41):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "metrics.jsonl").touch()
    with pytest.raises(ConfigError, match="There are 41 runs, and one page shows at most 40"):
        report([tmp_path], None)
    with pytest.raises(StorageError, match="cannot be written: there is no folder"):
        report([tmp_path / "1"], tmp_path / "nowhere" / "page.html")
