"""`vqgan evaluate` on a small run: what it measures on, what it writes, and how it ends."""

from __future__ import annotations

import csv
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from PIL import Image

import vqgan
from tests.integration.commands.test_command_line import SMALL, VQGAN, Ended, command
from tests.support.shard_folders import write_shards
from vqgan.commands import evaluate
from vqgan.config.build import conf_dir
from vqgan.data.synthetic import draw_video
from vqgan.errors import RunFolderInUseError, VQGANError
from vqgan.evaluation import report as evaluation_report
from vqgan.evaluation.evaluate import evaluate as evaluate_runs
from vqgan.evaluation.figures import UNITS, Metric
from vqgan.evaluation.report import Report
from vqgan.tokenizer.export import export
from vqgan.training.run import run
from vqgan.video.writer import write_video

QUICK = ("download=false", "device=cpu", "replicates=20")
VIDEO_KEYS = ("videos", "video_frames", "clip_frames", "stride", "fps")  # of a config's section `data`
MEASURED = set(UNITS) - {"lpips", "rfid", "rfvd", "flicker"}


def make_videos(folder: Path, count: int = 3, frames: int = 12) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        write_video(folder / f"{number}.mp4", draw_video(number, frames, 32), 24)
    return folder


def write_pictures(folder: Path, count: int, suffix: str = "png") -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((40, 50, 3), 60 * number, np.uint8)).save(folder / f"{number}.{suffix}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on four videos of eight frames, of which one is for validation."""
    folder = tmp_path_factory.mktemp("evaluate")
    own = [f"run_dir={folder / 'run'}", f"data.root={folder / 'videos'}", "data.videos=4", "data.video_frames=8"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run(compose("train", [*SMALL, *own, "data.index=null"]))
    return folder / "run"


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`vqgan evaluate ARGUMENTS` in `tmp_path`, without the seconds that a new process needs to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("COLUMNS", raising=False)

    def run_it(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["vqgan evaluate", *QUICK, *arguments])
        capsys.readouterr()
        try:
            evaluate.main()
            code, message = 0, ""
        except VQGANError as error:
            code, message = error.exit_code, str(error)
        except SystemExit as end:
            code, message = int(end.code or 0), ""
        out, err = capsys.readouterr()
        return Ended(code, out, message or err)

    return run_it


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_run_is_measured_on_its_whole_validation_split(typed: Callable[..., Ended], finished: Path) -> None:
    ended = typed("run")
    assert ended.code == 0, ended.error
    report = read(finished / "evaluation.json")
    assert list(report["metrics"]) == list(UNITS)
    assert {name for name, metric in report["metrics"].items() if metric["value"] is not None} == MEASURED
    assert all(math.isfinite(report["metrics"][name]["value"]) for name in MEASURED)
    missing = set(UNITS) - MEASURED - {"flicker"}
    assert (
        "lpips, rfid, rfvd not computed: no weights in torch's cache, and download=false; give files: " in ended.output
    )
    assert all(report["metrics"][name]["reason"].rpartition(": ")[2] in ended.output for name in missing)
    assert f"flicker not computed: {report['metrics']['flicker']['reason']}" in ended.output
    assert ended.output.count("not computed") == 2, "each reason once, and no empty rows"
    protocol = report["protocol"]
    assert protocol["data"]["split"] == "validation"
    assert (protocol["data"]["videos"], protocol["data"]["clips"], protocol["data"]["frames"]) == (1, 8, 8)
    assert protocol["tokenizer"]["step"] == 1
    trained_on = read(finished / "checkpoints" / "best" / "manifest.json")
    assert trained_on["step"] == 1
    (row,) = rows(finished / "evaluation.csv")
    assert float(row["psnr"]) == report["metrics"]["psnr"]["value"]
    assert row["lpips"] == row["psnr_low"] == ""
    assert not (finished / "bad_files.jsonl").exists()


def test_programs_read_all_of_it_from_one_document(typed: Callable[..., Ended], finished: Path) -> None:
    ended = typed("run", "no/such/folder", "--json")
    assert ended.code == 2
    told = json.loads(ended.output)
    assert [one["protocol"]["tokenizer"]["step"] for one in told["evaluations"]] == [1]
    assert told["evaluations"][0]["metrics"] == read(finished / "evaluation.json")["metrics"]
    assert "no/such/folder" in told["failed"][0]
    assert not typed("no/such/folder", "--json").output, "nothing was measured"


def test_the_figures_are_those_of_training(typed: Callable[..., Ended], finished: Path) -> None:
    """On the same two clips as in training; only rounding to 8 bits is new."""
    assert typed("run", "clips=2").code == 0
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    metrics = read(finished / "evaluation.json")["metrics"]
    assert metrics["psnr"]["value"] == pytest.approx(last["validation/psnr"], abs=0.02)
    assert metrics["psnr_mean_colour"]["value"] == pytest.approx(last["validation/psnr_mean_colour"], abs=1e-3)
    assert metrics["ssim"]["value"] == pytest.approx(last["validation/ssim"], abs=0.01)
    assert metrics["perplexity"]["value"] == pytest.approx(last["validation/perplexity"], rel=1e-4)
    assert metrics["bits_per_pixel"]["value"] == pytest.approx(last["validation/bits_per_pixel"], rel=1e-4)
    assert metrics["usage"]["value"] == pytest.approx(last["validation/usage"])


def test_values_of_the_data_can_be_changed(typed: Callable[..., Ended], finished: Path) -> None:
    assert typed("run", "data.clip_frames=4", "data.workers=0").code == 0
    report = read(finished / "evaluation.json")
    data = report["protocol"]["data"]
    assert (data["clip_frames"], data["resolution"], data["clips"], data["frames"]) == (4, 16, 2, 8)
    assert report["metrics"]["flicker"]["value"] > 0


def test_any_folder_a_second_time_and_where_it_goes(
    typed: Callable[..., Ended], finished: Path, tmp_path: Path
) -> None:
    make_videos(tmp_path / "mine")
    changed = ("data.clip_frames=5", "data.stride=2", "data.resolution=32")
    for _ in range(2):
        ended = typed("run", "--data", "mine", "--out", "there/figures.json", *changed)
        assert ended.code == 0, ended.error
    data = read(tmp_path / "there" / "figures.json")["protocol"]["data"]
    assert (data["split"], data["videos"], data["clips"], data["root"]) == ("all files", 3, 3, "mine")
    assert data["resolution"] == 32
    first, second = rows(tmp_path / "there" / "figures.csv")
    assert {k: v for k, v in first.items() if k != "time"} == {k: v for k, v in second.items() if k != "time"}
    assert not (finished / "evaluation.json").exists()
    assert len(list((tmp_path / "mine").iterdir())) == 3  # no synthetic videos in a folder of the user's


def test_a_run_and_its_export_are_the_same_tokenizer(
    typed: Callable[..., Ended], finished: Path, tmp_path: Path
) -> None:
    export(finished, tmp_path / "shared", "safetensors")
    make_videos(tmp_path / "mine")
    ended = typed("run", "shared", "--data", "mine", "data.clip_frames=3", "--csv", "all.csv", "data.workers=0")
    assert ended.code == 0, ended.error
    one, two = (read(tmp_path / name / "evaluation.json") for name in ("run", "shared"))
    assert one["metrics"] == two["metrics"]
    assert one["protocol"]["tokenizer"]["sha256"] == two["protocol"]["tokenizer"]["sha256"]
    assert one["protocol"]["data"] == two["protocol"]["data"]
    assert [row["tokenizer_name"] for row in rows(tmp_path / "all.csv")] == [
        f"{tmp_path.name}/run", f"{tmp_path.name}/shared",
    ]  # fmt: skip
    line = next(line for line in ended.output.splitlines() if line.startswith("psnr "))
    assert line.count("[") == 2
    assert "do not compare" not in ended.output
    assert "With --out DIR a page is written too" in ended.output


@pytest.mark.parametrize("runs", [2, 5])
def test_what_was_varied_stands_beside_the_names(runs: int, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {name: Metric(1.5, 1.0, 2.0, unit, None) for name, unit in UNITS.items()}
    data = {
        "frames": 8, "videos": 2, "split": "validation", "clip_frames": 1, "resize": "", "resolution": 16,
        "crop": "center", "values": "", "bad_files": 0, "unreadable_clips": 0,
    }  # fmt: skip
    about = {"data": data, "settings": {"confidence": 0.95}}
    reports = [Report(metrics, about | {"tokenizer": {"name": f"rate/{n}", "step": 60}}) for n in range(runs)]
    varied = {f"rate/{n}": [f"lr={n}", "channels=[1, 2]"] for n in range(runs - 1)}
    first, *lines = evaluation_report.table(reports, varied).splitlines()
    if runs == 2:
        assert [line.split("  ")[0] for line in lines[:2]] == ["", ""]
        assert first.index("rate/0") == lines[0].index("lr=0") == lines[1].index("channels=[1, 2]")
        assert first.index("rate/1") > lines[1].index("channels=[1, 2]")
    else:
        assert lines[1].startswith("rate/0, step 60")
        assert lines[1].endswith("lr=0, channels=[1, 2]")
        assert "lr" not in lines[5]


def test_evaluations_that_end_at_once_lose_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads the table and writes it anew, with time to get between the two."""

    def slowly(file: Path, original: Any = evaluation_report.rows_before) -> str:
        before: str = original(file)
        time.sleep(0.05)
        return before

    monkeypatch.setattr(evaluation_report, "rows_before", slowly)
    metrics = {name: Metric(1.0, None, None, unit, None) for name, unit in UNITS.items()}
    reports = [Report(metrics, {"tokenizer": {"name": str(n)}, "data": {}}) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda report: evaluation_report.add_row(report, tmp_path / "all.csv"), reports))
    assert sorted(row["tokenizer_name"] for row in rows(tmp_path / "all.csv")) == [str(n) for n in range(8)]


def test_a_table_that_is_not_let_go_of_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_report, "TURN", 0.1)
    with FileLock(tmp_path / ".lock-all.csv"), pytest.raises(RunFolderInUseError, match="Another process has held"):
        evaluation_report.add_row(Report({}, {"tokenizer": {}, "data": {}}), tmp_path / "all.csv")


def test_runs_of_other_data_are_measured_on_those_of_the_first(finished: Path, typed: Callable[..., Ended]) -> None:
    other = Path(shutil.copytree(finished, finished.with_name("other"), symlinks=True))
    changed = (other / "config.yaml").read_text().replace("stride: 1", "stride: 2")
    (other / "config.yaml").write_text(changed.replace("clip_frames: 1", "clip_frames: 4"))
    for first, second in (("run", "other"), ("other", "run")):
        ended = typed(first, second)
        assert ended.code == 0, ended.error
        one, two = (read(finished.with_name(name) / "evaluation.json")["protocol"] for name in (first, second))
        assert one["data"] == two["data"]
        assert (one["data"]["clip_frames"], one["data"]["stride"]) == ((1, 1) if first == "run" else (4, 2))
        assert one["tokenizer"]["remarks"] == []
        whose = f"{finished.parent.name}/{first}"
        assert f"sizes and times (data.stride={one['data']['stride']}) are those of {whose}" in ended.output
        trained = "data.clip_frames=4 data.stride=2" if first == "run" else "data.clip_frames=1 data.stride=1"
        assert f"{finished.parent.name}/{second}, step 1: trained with {trained}" in ended.output
        assert "do not compare" not in ended.output


def test_an_exported_tokenizer_on_pictures(typed: Callable[..., Ended], finished: Path, tmp_path: Path) -> None:
    export(finished, tmp_path / "shared", "safetensors")
    write_pictures(tmp_path / "pictures", 3)
    assert typed("shared", "--data", "pictures", "data.workers=0").code == 0
    data = read(tmp_path / "shared" / "evaluation.json")["protocol"]["data"]
    assert (data["videos"], data["clips"], data["frames"], data["clip_frames"], data["resolution"]) == (3, 3, 3, 1, 16)


def test_a_gif_among_pictures_makes_no_videos_of_them(typed: Callable[..., Ended], finished: Path) -> None:
    """Of a run on videos, too: the folder decides what is read."""
    write_pictures(finished.with_name("mine"), 3)
    write_pictures(finished.with_name("mine"), 1, "gif")
    ended = typed("run", "--data", "mine", "--out", "figures.json", "data.workers=0", "data.batch_size=3")
    assert ended.code == 0, ended.error
    data = read(finished.with_name("figures.json"))["protocol"]["data"]
    assert (data["clips"], data["frames"], data["stride"], data["resolution"]) == (4, 4, None, 16)


def test_a_run_on_pictures_is_measured_on_videos(typed: Callable[..., Ended], finished: Path, tmp_path: Path) -> None:
    config = (finished / "config.yaml").read_text().replace("vqgan.data.SyntheticVideos", "vqgan.data.Images")
    lines = [line for line in config.splitlines() if line.strip().partition(":")[0] not in VIDEO_KEYS]
    (finished / "config.yaml").write_text("\n".join(lines))
    make_videos(tmp_path / "mine")
    write_pictures(tmp_path / "mine", 1)
    with pytest.warns(UserWarning, match="holds 3 videos and 1 images. The videos are measured, the images are left"):
        ended = typed("run", "--data", "mine", "--out", "figures.json", "data.clip_frames=3", "data.workers=0")
    assert ended.code == 0, ended.error
    data = read(tmp_path / "figures.json")["protocol"]["data"]
    assert (data["videos"], data["clips"], data["frames"], data["resolution"]) == (3, 12, 36, 16)


def test_shards_are_evaluated_on_and_their_clips_counted_by_video(
    typed: Callable[..., Ended], finished: Path, tmp_path: Path
) -> None:
    make_videos(tmp_path / "mine")
    write_shards(tmp_path / "shards", tmp_path / "mine", clip_frames=3)
    clips = json.loads((tmp_path / "shards" / "manifest.json").read_text())["clips"]
    ended = typed("run", "--data", "shards", "--out", "figures.json", "data.workers=0", "data.clip_frames=2")
    assert ended.code == 0, ended.error
    data = read(tmp_path / "figures.json")["protocol"]["data"]
    assert (data["videos"], data["clips"], data["root"], data["split"]) == (3, clips, "shards", "all files")
    assert clips > 3


def test_what_cannot_be_read_is_written_down_and_counted(
    typed: Callable[..., Ended], finished: Path, tmp_path: Path
) -> None:
    make_videos(tmp_path / "mine")
    (tmp_path / "mine" / "empty.mp4").touch()
    content = (tmp_path / "mine" / "2.mp4").read_bytes()
    middle = len(content) // 2
    (tmp_path / "mine" / "2.mp4").write_bytes(content[:middle] + bytes(600) + content[middle + 600 :])
    ended = typed("run", "--data", "mine", "--out", "figures.json", "data.clip_frames=2")
    assert ended.code == 0, ended.error
    data = read(tmp_path / "figures.json")["protocol"]["data"]
    ledger = [json.loads(line) for line in (tmp_path / "evaluation_bad_files.jsonl").read_text().splitlines()]
    assert {entry["path"] for entry in ledger} == {"mine/2.mp4", "mine/empty.mp4"}
    assert data["bad_files"] == len(ledger) == 2
    assert data["clips"] + data["unreadable_clips"] == 18
    assert data["unreadable_clips"] > 0
    assert (
        f"2 files in mine have faults, {data['unreadable_clips']} clips are left out: see evaluation_bad_files"
        in ended.output
    )


def test_other_data_take_nothing_from_the_run(typed: Callable[..., Ended], finished: Path, tmp_path: Path) -> None:
    own = '{"path": "own.mp4", "reason": "empty file"}\n'
    (finished / "bad_files.jsonl").write_text(own)
    for folder in ("mine", "yours"):
        make_videos(tmp_path / folder, 2)
        (tmp_path / folder / f"{folder}.mp4").touch()
    assert typed("run").code == 0
    validated = (finished / "evaluation.json").read_text()
    assert typed("run").code == 0
    assert len(list(finished.glob("evaluation*.json"))) == 1, "the same again takes the place of the one before"

    ended = typed("run", "--data", "mine")
    assert "run/evaluation.json was measured on other data; it is now evaluation-validation.json." in ended.output
    assert read(finished / "evaluation-validation.json")["metrics"] == json.loads(validated)["metrics"]
    assert read(finished / "evaluation.json")["protocol"]["data"]["root"] == "mine"
    assert typed("run", "--data", str(tmp_path / "yours")).code == 0
    assert read(finished / "evaluation-mine.json")["protocol"]["data"]["root"] == "mine"
    assert read(finished / "evaluation.json")["protocol"]["data"]["root"] == "yours"
    assert "yours/yours.mp4" in (finished / "evaluation_bad_files.jsonl").read_text()
    assert "mine" not in (finished / "evaluation_bad_files.jsonl").read_text()
    assert (finished / "bad_files.jsonl").read_text() == own
    assert len(rows(finished / "evaluation.csv")) == 4


def test_an_evaluation_does_not_say_where_things_lie(
    typed: Callable[..., Ended], finished: Path, tmp_path: Path
) -> None:
    """An exported folder is there to be shared."""
    export(finished, tmp_path / "shared", "safetensors")
    make_videos(tmp_path / "mine")
    (tmp_path / "mine" / "empty.mp4").touch()
    (tmp_path / "other.pth").write_bytes(b"other weights")
    weights = (f"weights.vgg16={tmp_path}/other.pth", f"weights.i3d={tmp_path}/gone.pt")
    ended = typed("shared", "--data", str(tmp_path / "mine"), *weights)
    assert ended.code == 0, ended.error
    reasons = {name: metric["reason"] for name, metric in read(tmp_path / "shared/evaluation.json")["metrics"].items()}
    assert reasons["lpips"].startswith("weights.vgg16=…/other.pth is not vgg16-397923af.pth: its SHA-256 is ")
    assert reasons["rfvd"] == "weights.i3d=…/gone.pt is not there"
    assert "mine/empty.mp4" in (tmp_path / "shared" / "evaluation_bad_files.jsonl").read_text()
    for file in (tmp_path / "shared").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "clipz=3"), 2, "Unknown key 'clipz'. Did you mean 'clips'?"),
        (("run", "data.fpz=3"), 2, "Unknown key 'data.fpz'. Did you mean 'data.fps'?"),
        (("run", "clips=0"), 2, "clips must be positive or null, but is 0."),
        (("run", "weights.vgg16=3"), 2, "weights.vgg16 must be text"),
        (("run", "data.resolution=18"), 2, "data.resolution must be a multiple of "),
        (("run", "device=abacus"), 2, "device=abacus is not available here"),
        (("no/such/folder",), 2, "no/such/folder is no folder here"),
        (("shared",), 2, "shared is no run, so it has no data of its own; name a folder: --data DIR."),
        (("run", "run", "--out", "one.json"), 2, "--out one.json is one file, and 2 tokenizers are measured"),
        (("run", "--csv", "run/config.yaml"), 2, "run/config.yaml has other columns than an evaluation."),
        (("run", "--data", "nowhere"), 3, "--data=nowhere is not a folder."),
        (("run", "--data", "empty"), 3, "--data=empty holds no file of a known kind"),
        (("empty", "--data", "empty"), 2, "empty is neither a run nor an exported tokenizer"),
        (("run", "--out", "run/config.yaml/x.json"), 5, "run/config.yaml cannot be written: "),
        (("clips=3",), 2, "usage: "),
    ],
)
def test_a_mistake_ends_with_its_exit_code(
    arguments: tuple[str, ...], code: int, message: str, typed: Callable[..., Ended], finished: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    if "shared" in arguments:
        export(finished, tmp_path / "shared", "safetensors")
    ended = typed(*arguments)
    assert (ended.code, ended.error.startswith(message)) == (code, True), ended.error
    assert not (finished / "evaluation.json").exists()


def test_other_data_than_in_training_are_a_warning(typed: Callable[..., Ended], finished: Path, tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", 4, 8)
    config = (finished / "config.yaml").read_text().replace("vqgan.data.SyntheticVideos", "vqgan.data.Videos")
    lines = [line for line in config.splitlines() if not line.startswith(("  videos:", "  video_frames:"))]
    text = "\n".join("  root: videos" if line.startswith("  root:") else line for line in lines)
    (finished / "config.yaml").write_text(text)
    with pytest.warns(UserWarning, match=r"The data are not those that run was trained on: 4 files, .* now"):
        assert typed("run").code == 0


def test_a_class_that_is_not_a_data_set_is_not_built(typed: Callable[..., Ended], finished: Path) -> None:
    config = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(config.replace("vqgan.data.SyntheticVideos", "os.system"))
    ended = typed("run")
    assert ended.code == 2
    assert ended.error.startswith("data._target_ is 'os.system', which a config may not build")


@pytest.mark.slow
def test_the_installed_command(finished: Path, tmp_path: Path) -> None:
    ended = command(VQGAN, "evaluate", "run", "download=false", "device=cpu", folder=tmp_path)
    assert (ended.code, ended.error) == (0, "")
    assert "psnr " in ended.output


def test_help_answers_without_torch(tmp_path: Path) -> None:
    ended = command("-X", "importtime", VQGAN, "evaluate", "--help", folder=tmp_path)
    assert ended.code == 0
    assert "vqgan evaluate runs/f16" in ended.output
    assert "replicates: 1000" in ended.output
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.error.splitlines()}
    assert "torch" not in imported


def test_several_processes_are_refused(typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    ended = typed("run")
    assert ended.code == 2
    assert "start it without torchrun" in ended.error


def test_from_python(finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (report,) = evaluate_runs([str(finished)], None, None, None, ["download=false", "device=cpu", "replicates=0"])
    assert report.metrics["psnr"].value is not None
    assert report.metrics["psnr"].low is None
    assert vqgan.load(finished).quantizer.codebook_size == 16
