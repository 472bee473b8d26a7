"""A comparison from a real multirun, and its page as a person sees it."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.support.browser import COLOURS, PHONE, Open, contrast, luminance, see_all, settled, with_browser
from tests.support.parts import PLAIN
from tests.support.written_run import ordinary_rows, write_run
from vqgan.commands.compare import compare
from vqgan.config.build import conf_dir

ROOT = Path(__file__).resolve().parents[3]
SMALL = (
    *PLAIN,
    "trainer.device=cpu", "data.workers=0", "data.validation_clips=2", "data.batch_size=2", "backbone.channels=8",
    "backbone.resolution=16", "model.quantizer.codebook_size=16", "discriminator.channels=4", "logger=none",
    "trainer.steps=2", "trainer.log_every=1", "trainer.evaluate_every=1", "data.videos=4", "data.video_frames=8",
)  # fmt: skip


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)


# A real multirun


@pytest.mark.slow
def test_a_real_multirun_is_compared_and_its_best_run_can_be_trained_again(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    trained = run("train.py", "-m", f"run_dir={sweep}", "model=vqmodel,emavq", "optimizer.lr=1e-3", *SMALL)
    assert trained.returncode == 0, trained.stderr
    vqgan = "import sys; sys.argv[0] = 'vqgan'; from vqgan.commands import main; main()"
    done = run("-c", vqgan, "compare", sweep)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 runs: 2 finished. Varied: model.\n")
    rows = list(csv.DictReader(io.StringIO((sweep / "compare.csv").read_text())))
    assert {row["run"]: row["model"] for row in rows} == {"0": "vqmodel", "1": "emavq"}
    for row in rows:
        measured = [json.loads(line) for line in (sweep / row["run"] / "metrics.jsonl").read_text().splitlines()]
        best = max(measured[1:], key=lambda one: one.get("validation/psnr", 0))  # step 0 is before training
        assert float(row["best validation/psnr"]) == best["validation/psnr"]
        assert int(row["step of best validation/psnr"]) == best["step"]
        assert float(row["last validation/usage"]) == measured[-1]["validation/usage"]
    assert float(rows[0]["best validation/psnr"]) >= float(rows[1]["best validation/psnr"])
    (command,) = (line for line in done.stdout.splitlines() if line.startswith("vqgan train "))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        again = compose("train", shlex.split(command)[2:])
    saved = OmegaConf.load(sweep / rows[0]["run"] / "config.yaml")
    assert again.run_dir != saved.run_dir
    again.run_dir = saved.run_dir
    assert OmegaConf.to_container(again) == OmegaConf.to_container(saved)


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of twelve runs: nine finished, one each diverged, failed and damaged."""
    sweep = tmp_path_factory.mktemp("study") / "a sweep"
    for n in range(12):
        lr, size, model = 10 ** -(n % 3 + 2), 2 ** (8 + n % 4), ("vqmodel", "emavq")[n % 2]
        rows = ordinary_rows(51)
        for row in rows:
            if "validation/psnr" in row:
                row["validation/psnr"] += n % 3 + n / 10
        values = {"optimizer.lr": lr, "model.quantizer.codebook_size": size, "loss.pixel": model}
        folder = write_run(sweep / str(n), rows, **values)
        state = {9: "diverged", 10: "failed"}.get(n, "finished")
        status = {"state": state, "message": "it came to nothing" if n in (9, 10) else None, "exit_code": n % 5}
        (folder / "status.json").write_text(json.dumps(status))
    (sweep / "8" / "report.html").write_text("<title>the report of 8</title>")
    (sweep / "11" / "config.yaml").write_text("[")
    compare([sweep], None, None)
    return sweep / "compare.html"


def column(tab: Any, number: int) -> list[str]:
    return [text.strip("★\xa0") for text in tab.locator(f"#trials tbody td:nth-child({number})").all_inner_texts()]


@with_browser
def test_the_table_is_sorted_by_the_column_that_is_pressed(page: Path, opened: Open) -> None:
    tab = opened(page)
    assert "12 runs: 9 finished, 1 diverged, 1 failed, 1 damaged." in tab.locator("#trials").inner_text()
    assert column(tab, 1) == ["8", "5", "2", "7", "4", "1", "6", "3", "0", "9", "10", "11"]
    assert tab.locator("#trials tr.best").inner_text().startswith("★\xa08")
    heading = tab.locator("#trials thead").get_by_role("button", name="lr", exact=True)
    heading.click()
    assert column(tab, 3) == [*["1e-4"] * 4, *["0.001"] * 4, *["0.01"] * 4]
    assert heading.locator("..").get_attribute("aria-sort") == "ascending"
    heading.focus()
    tab.keyboard.press("Enter")
    assert heading.locator("..").get_attribute("aria-sort") == "descending"
    assert column(tab, 3)[0] == "0.01"
    tab.locator("#trials thead").get_by_role("button", name="run", exact=True).click()
    assert column(tab, 1) == [str(n) for n in range(12)]
    tab.locator("#trials thead").get_by_role("button", name="best psnr").click()
    assert column(tab, 1)[0] == "11", "largest first, be it of a run that does not count"
    assert heading.locator("..").get_attribute("aria-sort") == "none"


@with_browser
def test_all_charts_are_drawn_and_reports_can_be_reached(page: Path, opened: Open) -> None:
    tab = opened(page)
    see_all(tab)
    assert tab.locator("#coordinates .scatterlayer .trace").count() == 9, "runs without a result are not in it"
    assert "3 of 12 runs are not here" in tab.locator("#coordinates").inner_text()
    assert tab.locator("#keys .chart").count() == 3
    assert tab.locator("#curves .scatterlayer .trace").count() == 12
    assert tab.locator("#importance tbody tr").count() == 3
    assert "it came to nothing" in tab.locator("#reasons").inner_text()
    tab.locator("#curves").get_by_label("metric").select_option("train/total")
    settled(tab)
    see_all(tab)
    assert tab.locator("#curves figcaption").inner_text() == "train/total"
    tab.get_by_role("link", name="8", exact=True).click()
    assert tab.title() == "the report of 8"


@with_browser
def test_a_part_of_an_axis_chooses_runs_on_the_whole_page(page: Path, opened: Open) -> None:
    tab = opened(page)
    see_all(tab)
    chart = tab.locator("#coordinates .chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    at = "({_fullLayout: {xaxis, yaxis}}) => [xaxis._offset + xaxis.l2p(1), yaxis._offset + yaxis.l2p(0.2)]"
    left, top = chart.evaluate(at)
    tab.mouse.move(box["x"] + left - 20, box["y"] + top)
    tab.mouse.down()
    tab.mouse.move(box["x"] + left + 20, box["y"] + box["height"] - 12, steps=5)
    tab.mouse.up()
    tab.locator("#trials tr.out").first.wait_for()
    see_all(tab)
    shown = tab.locator("#trials tbody tr:not(.out) td:first-child").all_inner_texts()
    assert sorted(text.strip("★\xa0") for text in shown) == ["0", "4", "8"], "those of the smallest codebook"
    assert tab.locator("#curves .scatterlayer .trace").count() == 3
    tab.get_by_role("button", name="all runs").click()
    settled(tab)
    see_all(tab)
    assert tab.locator("#trials tr.out").count() == 0
    assert tab.locator("#curves .scatterlayer .trace").count() == 12


@with_browser
def test_the_command_of_the_best_can_be_copied(page: Path, opened: Open) -> None:
    tab = opened(page)
    command = tab.locator("#trials pre").inner_text()
    assert command.startswith("python train.py trainer.steps=100 seed=0 optimizer.lr=0.0001")
    tab.get_by_role("button", name="copy the command").click()
    tab.locator("[role=status]", has_text="cop").wait_for()
    tab.context.grant_permissions(["clipboard-read"])
    copied = tab.evaluate("navigator.clipboard.readText().catch(() => getSelection().toString())")
    assert copied.strip() == command


@with_browser
def test_colours_tell_the_result_or_a_key(page: Path, opened: Open) -> None:
    tab = opened(page)
    see_all(tab)
    strokes = "[...document.querySelectorAll('#coordinates .js-line')].map((line) => line.style.stroke)"
    assert len(set(tab.evaluate(strokes))) == 9
    tab.get_by_label("colour by").select_option(label="pixel")
    settled(tab)
    see_all(tab)
    assert len(set(tab.evaluate(strokes))) == 2


@with_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways_in_both_schemes(page: Path, opened: Open, scheme: str) -> None:
    tab = opened(page, PHONE, scheme)
    see_all(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    for selector in (".badge.finished", ".badge.diverged", ".faint", "td", "pre", "th button", "footer", "code"):
        colours = tab.locator(selector).first.evaluate(COLOURS)
        assert contrast(*map(luminance, colours)) >= 4.5, (selector, colours)
    background = luminance(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    for line in tab.evaluate("[...document.querySelectorAll('.js-line')].map((line) => getComputedStyle(line).stroke)"):
        assert contrast(luminance(line), background) >= 3


ATTACK = "<img src=x onerror=window.hacked=1><a href='https://evil.example'>x</a>"


@with_browser
def test_nothing_that_a_run_says_is_executed_or_fetched(tmp_path: Path, opened: Open) -> None:
    for n in range(9):
        rows = [row | {f"train/{ATTACK[:90]}": 1.0, "__proto__/x": 1.0} for row in ordinary_rows(21)]
        folder = write_run(
            tmp_path / f"{n}{ATTACK.replace('/', '_')}", rows, **{f"{ATTACK}{n % 2}": n, "x": f"{ATTACK}{n % 3}"}
        )
        state = "failed" if n == 8 else "finished"
        (folder / "status.json").write_text(json.dumps({"state": state, "message": ATTACK, "exit_code": ATTACK}))
    compare([tmp_path], None, None)
    tab = opened(tmp_path / "compare.html")
    see_all(tab)
    tab.locator("#curves").get_by_label("metric").select_option(f"train/{ATTACK[:90]}")
    settled(tab)
    see_all(tab)
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("img, main a").count() == 0
    assert ATTACK in tab.locator("#reasons").inner_text(), "it is shown as what it is"


ODD: dict[str, list[dict[str, Any]]] = {
    "one run": [{"seed": 1}],
    "nothing varied": [{"seed": 1}, {"seed": 1}],
    "one key": [{"seed": n} for n in range(3)],
    "mixed values": [{"loss.clip": value} for value in (1.0, "null", "[1, 2]", "x" * 300)],
    "no number": [{"steps": n, "optimizer.lr": 0} for n in range(2)],
    "many keys": [{f"a.k{key}": n * key for key in range(1, 13)} for n in range(4)],
}


@pytest.mark.slow
@with_browser
@pytest.mark.parametrize("name", ODD)
def test_odd_studies_are_shown_as_far_as_they_go(name: str, tmp_path: Path, opened: Open) -> None:
    for n, values in enumerate(ODD[name]):
        write_run(tmp_path / str(n), [] if name == "no number" else ordinary_rows(1 + 10 * n), **values)
    compare([tmp_path], None, None)
    tab = opened(tmp_path / "compare.html", PHONE)
    if name != "no number":
        see_all(tab)
    assert tab.locator("#trials tbody tr").count() == len(ODD[name])
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
