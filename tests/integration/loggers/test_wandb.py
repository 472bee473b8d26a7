"""What Weights & Biases is told: the files of offline runs read back, and its own client talking to a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import vqgan
from tests.conftest import Compose
from tests.faults.test_numbers import WAYS
from tests.support import wandb_server
from tests.support.runs import ROOT, SMALL
from tests.support.wandb_file import OfflineRun, read
from tests.support.wandb_server import Server
from vqgan.errors import DivergedError, StoppedError, StorageError
from vqgan.loggers import WeightsAndBiases
from vqgan.loggers.wandb import logger as wandb_logger
from vqgan.loggers.wandb.artifacts import best_checkpoint
from vqgan.runs.checkpoint import Checkpoints
from vqgan.runs.criterion import Criterion
from vqgan.runs.status import status_of
from vqgan.training.run import run
from vqgan.video.writer import write_video

pytestmark = pytest.mark.slow

SWEEP = ROOT / "sweeps" / "wandb" / "commitment.yaml"  # varies a group, and a value below it


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What W&B keeps outside a run folder goes to the test's own; a busy machine may take its time."""
    monkeypatch.setattr(wandb_logger, "HURRY", 60.0)
    for name in ("CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with wandb_server.serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", wandb_server.KEY)
        yield server


def lives(folder: Path) -> list[OfflineRun]:
    """What each process of a run has kept offline, in order."""
    return [read(file) for file in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))]


def logger_of(
    folder: Path, mode: Any = "offline", upload: Any = "reference", private: bool = False
) -> WeightsAndBiases:
    values: Any = {"project": "vqgan", "entity": None, "group": None, "tags": [], "mode": mode, "upload": upload}
    return WeightsAndBiases(folder, {"seed": 3}, private, **values)


def log(logger: WeightsAndBiases, *steps: int) -> None:
    for step in steps:
        logger.log(step, {"train/total": 1 / (step + 1), "validation/psnr": 20.0 - step, "speed/hours": step / 10}, {})


def wandb(*arguments: str, **options: Any) -> str:
    """The command; returns what it said."""
    command = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [str(command), *arguments], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_is_named_after_what_was_typed_for_it(resumed: Path) -> None:
    for life in lives(resumed):
        assert life.run.display_name.startswith("model=vqmodel,trainer.steps="), "no path, nor what is of the machine"
        assert life.run.display_name.endswith(",try")
        assert (life.run.job_type, life.run.run_group, list(life.run.tags)) == ("train", "", [])
    assert len({life.run.run_id for life in lives(resumed)}) == 1


def test_all_values_and_what_follows_from_them_can_be_filtered_by(resumed: Path) -> None:
    config = lives(resumed)[-1].config
    assert config["model"]["quantizer"]["codebook_size"] == config["facts"]["codebook_size"] == 16
    tokenizer = vqgan.load(resumed)
    assert config["facts"]["parameters"] == sum(p.numel() for p in tokenizer.parameters())
    assert config["facts"]["files"] == 60
    assert config["facts"]["data_fingerprint"].startswith("60 files, ")


def test_each_step_has_one_row_of_all_scalars_with_axes_of_steps_and_hours(resumed: Path) -> None:
    history = [row for life in lives(resumed) for row in life.history]
    written = [json.loads(line) for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    assert [row["trainer/step"] for row in history] == [row["_step"] for row in history] == [0, 1, 2, 3, 4]
    for row, expected in zip(history, written):
        scalars = {name: value for name, value in expected.items() if name not in ("step", "time")}
        assert {name: row[name] for name in scalars} == pytest.approx(scalars)
    for life in lives(resumed):
        assert life.metrics["trainer/step"].options.hidden
        assert life.metrics["*"].step_metric == "trainer/step"


def test_the_summary_has_the_best_values_of_the_whole_run(resumed: Path) -> None:
    history = {row["_step"]: row for life in lives(resumed) for row in life.history}
    summary, psnr = lives(resumed)[-1].summary, {step: row["validation/psnr"] for step, row in history.items()}
    assert summary["validation/psnr"] == max(psnr.values())
    assert psnr[summary["best/step"]] == max(psnr.values())
    assert summary["validation/ssim"] == max(row["validation/ssim"] for row in history.values())
    assert summary["train/total"] == history[4]["train/total"]


def test_best_values_outlast_a_resume_and_are_lowest_where_that_is_better(tmp_path: Path) -> None:
    first = logger_of(tmp_path)
    first.log(1, {"validation/psnr": 30.0, "validation/lpips": 0.2}, {})
    first.log(2, {"validation/psnr": 20.0, "validation/lpips": 0.1}, {})
    first.close()
    second = logger_of(tmp_path)
    second.load_state_dict(first.state_dict())
    second.log(3, {"validation/psnr": 25.0, "validation/lpips": 0.3}, {})
    second.close()
    summary = lives(tmp_path)[-1].summary
    assert (summary["validation/psnr"], summary["validation/lpips"], summary["best/step"]) == (30.0, 0.1, 1)


def test_reconstructions_are_a_table_over_steps_beside_the_pictures(resumed: Path) -> None:
    life = lives(resumed)[-1]
    assert life.summary["reconstructions/over_steps"]["nrows"] == 5
    files = {entry.path: Path(entry.local_path) for entry in life.artifact("run_table").manifest.contents}
    assert all(file.is_relative_to(resumed) for file in files.values()), "a run folder has all that is to be uploaded"
    table = json.loads(files["reconstructions/over_steps.table.json"].read_text())
    assert table["columns"][:3] == ["step", "hours", "originals above, reconstructions below"]
    rows = [dict(zip(table["columns"], row)) for row in table["data"]]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4], "those of the life before too"
    history = {row["_step"]: row for other in lives(resumed) for row in other.history}
    for row in rows:
        logged = history[row["step"]]
        measured = (row["hours"], row["psnr"], row["ssim"])
        assert measured == (logged["speed/hours"], logged["validation/psnr"], logged["validation/ssim"])
        shown = files[row["originals above, reconstructions below"]["path"]].read_bytes()
        assert shown == (resumed / "reconstructions" / f"step-{row['step']:08d}.png").read_bytes()
    pictures = [row["reconstructions/frames"] for row in history.values()]
    assert {picture["_type"] for picture in pictures} == {"image-file"}
    assert {row["reconstructions/clips"]["_type"] for row in history.values()} == {"video-file"}


def test_a_checkpoint_that_is_the_best_by_another_objective_says_by_which(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", 1, Criterion("-validation/lpips"))
    checkpoints.save_in_background(4, score=-0.25, network=torch.nn.Linear(1, 1))
    checkpoints.finish()
    artifact = best_checkpoint(tmp_path)
    assert artifact is not None
    assert {name: artifact["metadata"].get(name) for name in ("step", "lpips", "psnr")} == {
        "step": 4, "lpips": 0.25, "psnr": None,
    }  # fmt: skip


def test_the_best_checkpoint_is_referred_to(resumed: Path) -> None:
    artifact, best = lives(resumed)[-1].artifact("checkpoint"), (resumed / "checkpoints" / "best").resolve()
    assert {entry.ref for entry in artifact.manifest.contents} == {
        (best / name).as_uri() for name in ("manifest.json", "state.pt")
    }
    manifest = json.loads((best / "manifest.json").read_text())
    assert json.loads(artifact.metadata) == {
        "step": manifest["step"], "psnr": manifest["score"], "sha256": manifest["files"]["state.pt"]["sha256"]
    }  # fmt: skip
    assert set(artifact.aliases) == {"best", "latest", f"step-{manifest['step']}"}


@pytest.mark.slow
def test_the_tokenizer_and_its_checkpoint_are_uploaded_if_that_is_asked_for(
    composed: Compose, tmp_path: Path, server: Server
) -> None:
    run(composed("logger=wandb", "logger.wandb.upload=upload", "trainer.steps=2"))
    numbers = {artifact["artifactTypeName"]: n for n, artifact in enumerate(server.artifacts, 1)}
    assert numbers.keys() == {"run_table", "checkpoint", "model"}
    files = {
        name: {path.rpartition("/")[2]: content for path, content in server.uploads.items() if f"artifact-{n}/" in path}
        for name, n in numbers.items()
    }
    best = tmp_path / "run" / "checkpoints" / "best"
    assert files["checkpoint"]["state.pt"] == (best / "state.pt").read_bytes()
    (tmp_path / "downloaded").mkdir()
    for name, content in files["model"].items():
        (tmp_path / "downloaded" / name).write_bytes(content)
    downloaded, trained = vqgan.load(tmp_path / "downloaded"), vqgan.load(tmp_path / "run")
    for name, value in trained.state_dict().items():
        assert value.equal(downloaded.state_dict()[name])
    assert not (tmp_path / "run" / "wandb" / "tokenizer").exists()


def test_nothing_is_said_of_checkpoints_unless_wanted(resumed: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").symlink_to(resumed / "checkpoints")
    for number, upload in enumerate(("reference", "none"), 1):
        logger = logger_of(tmp_path, upload=upload)
        log(logger, 1)
        logger.close()
        assert len(lives(tmp_path)) == number
    assert sorted(len(life.artifacts) for life in lives(tmp_path)) == [0, 1]


@pytest.mark.parametrize(
    ("error", "code", "goes_on"),
    [
        (DivergedError("Training diverged: look into /data."), 4, False),
        (StoppedError("Stopped by SIGTERM."), 143, True),
        (ZeroDivisionError("a bug"), 1, False),
    ],
)
def test_a_run_ends_in_wandb_as_it_ended(tmp_path: Path, error: Exception, code: int, goes_on: bool) -> None:
    logger = logger_of(tmp_path)
    log(logger, 1)
    logger.close(error)
    (life,) = lives(tmp_path)
    assert (life.exit_code, life.preempting) == (code, goes_on)
    diverged = isinstance(error, DivergedError)
    said = [("training diverged", "Training diverged: look into /data.", "ERROR")] if diverged else []
    assert [(alert.title, alert.text, alert.level) for alert in life.alerts] == said


def test_a_run_that_diverges_says_so(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WAYS["loss of the autoencoder"](monkeypatch, set(range(2, 20)), float("nan"))
    values = ("trainer.steps=20", "trainer.log_every=1", "loss.discriminator_weight=0")
    with pytest.raises(DivergedError) as caught:
        run(composed(*values, "logger=[wandb,tensorboard]", "logger.wandb.mode=offline"))
    (life,) = lives(tmp_path / "run")
    assert life.exit_code == DivergedError.exit_code
    alerts = {alert.title: (alert.level, alert.text) for alert in life.alerts}
    assert alerts["training diverged"] == ("ERROR", str(caught.value))


def test_a_run_whose_process_is_gone_has_not_finished(tmp_path: Path) -> None:
    logger = logger_of(tmp_path)
    log(logger, 1)
    assert logger.process is not None
    logger.rows.put(None)  # the pipe ends, as it does when the one that writes is killed
    logger.process.wait(30)
    (life,) = lives(tmp_path)
    assert (life.exit_code, [row["_step"] for row in life.history]) == (1, [1])


def test_a_private_run_has_no_name_tags_table_or_artifact_of_ours(tmp_path: Path) -> None:
    (tmp_path / "sweep" / "7" / "reconstructions").mkdir(parents=True)
    (tmp_path / "sweep" / "sweep.yaml").touch()
    folder = tmp_path / "sweep" / "7"
    (folder / "overrides.yaml").write_text("- experiment=patients\n")
    picture = folder / "reconstructions" / "step-00000001.png"
    Image.new("RGB", (8, 8)).save(picture)
    for private in (True, False):
        logger = logger_of(folder, private=private)
        logger.load_state_dict({"choices": {"experiment": "patients"}})
        logger.log(1, {"validation/psnr": 1.0}, {"reconstructions/frames": picture})
        logger.close(DivergedError("Training diverged in /data/patients."))
    private, public = sorted(lives(folder), key=lambda life: life.run.display_name != "private")
    assert (public.run.run_group.rpartition("/")[2], public.run.job_type) == ("sweep", "sweep")
    assert list(public.run.tags) == ["experiment=patients"]
    assert public.run.display_name == "experiment=patients"
    assert len(public.artifacts) == len(public.alerts) == 1
    assert (private.run.run_group, list(private.run.tags), private.artifacts) == ("", [], [])
    assert "choices" not in private.config
    (alert,) = private.alerts
    assert "patients" not in alert.text


def test_offline_rows_after_the_checkpoint_are_not_added_twice_and_sync_gives_one_run(
    tmp_path: Path, server: Server
) -> None:
    first = logger_of(tmp_path)
    log(first, 0, 1, 2)
    state = first.state_dict()
    log(first, 3, 4)
    first.close(StorageError("The disk is full."))
    second = logger_of(tmp_path)
    second.load_state_dict(state)
    log(second, 3, 4, 5)
    second.close()
    assert [[row["_step"] for row in life.history] for life in lives(tmp_path)] == [[0, 1, 2, 3, 4], [5]]
    wandb("sync", str(tmp_path / "wandb"), cwd=tmp_path)
    ((name, synced),) = server.runs.items()
    assert name == first.id == second.id
    assert [row["trainer/step"] for row in synced.history] == [0, 1, 2, 3, 4, 5]
    assert (synced.exit_code, synced.summary["validation/psnr"], synced.summary["best/step"]) == (0, 19.0, 1)


def test_online_rows_after_the_checkpoint_are_not_added_twice(tmp_path: Path, server: Server) -> None:
    first = logger_of(tmp_path, mode="auto")
    log(first, 0, 1, 2)
    state = first.state_dict()
    log(first, 3, 4)
    first.close(DivergedError("Training diverged."))
    (online,) = server.runs.values()
    assert (online.exit_code, [alert["severity"] for alert in server.alerts]) == (4, ["ERROR"])
    second = logger_of(tmp_path, mode="auto")
    second.load_state_dict(state)
    log(second, 3, 4, 5)
    second.close()
    assert [row["trainer/step"] for row in online.history] == [0, 1, 2, 3, 4, 5]
    assert online.exit_code == 0
    assert not first.warned
    assert not second.warned


@pytest.mark.slow
def test_an_agent_runs_a_sweep_to_its_end(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep's own file, with a smaller network: from its command to two finished runs."""
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        (tmp_path / "videos").mkdir(exist_ok=True)
        write_video(tmp_path / "videos" / f"{number}.mp4", pixels, 8)
    sweep = yaml.safe_load(SWEEP.read_text())
    small = [override for override in SMALL if not override.startswith(("logger=", "data.video", "model."))]
    folder = f"run_dir={tmp_path}/runs/${{oc.env:WANDB_SWEEP_ID}}/${{oc.env:WANDB_RUN_ID}}"
    sweep["command"][-1:-1] = [*small, "data.resolution=16", "data.val_fraction=0.5", "trainer.steps=3", folder]
    server.sweep = yaml.safe_dump(sweep)
    server.trials = [{key: values["values"][n] for key, values in sweep["parameters"].items()} for n in (0, -1)]
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")  # the agent's python is PATH's
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    wandb("agent", "--count", "2", "me/vqgan/s", cwd=tmp_path)
    assert sorted(server.runs) == ["trial0", "trial1"]
    for name, trial in zip(("trial0", "trial1"), server.trials):
        told, trained = server.runs[name], tmp_path / "runs" / "s" / name
        state = status_of(trained)
        assert state is not None
        assert (state.state, told.exit_code, told.values["jobType"]) == ("finished", 0, "sweep")
        assert told.values["sweep"] == "s"
        assert told.config["choices"]["data"] == "videos"
        assert told.config["backbone"]["channels"] == 8
        assert {**told.config, **trial} == told.config, "what is varied, by the sweep's own keys"
        displaced = told.config["model.quantizer.codebook_size"]
        assert displaced == told.config["facts"]["codebook_size"], "values that the choice `model` has displaced"
        assert f"model={trial['model']}" in told.values["tags"]
        varied = [f"{key.rpartition('.')[2]}={value}" for key, value in trial.items()]
        assert told.values["displayName"].endswith(",".join(varied))
        rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
        assert [row["trainer/step"] for row in told.history] == [row["step"] for row in rows]
        assert told.summary["validation/psnr"] == pytest.approx(
            max(r["validation/psnr"] for r in rows if "validation/psnr" in r)
        )
