"""What the loggers leave behind, read back as their own tools would."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from tests.conftest import Compose
from vqgan.errors import DivergedError
from vqgan.loggers import JsonLines, Logger, Loggers, TensorBoard, WeightsAndBiases
from vqgan.loggers.tensorboard import CHARTS
from vqgan.loggers.wandb.process import chosen_mode
from vqgan.training.run import run

pytestmark = pytest.mark.slow

PANELS = {
    "train/total", "train/pixel", "train/quantization", "train/adversarial", "train/discriminator", "validation/psnr",
    "validation/ssim", "codebook/perplexity", "codebook/usage", "adversarial/weight", "adversarial/logits_real",
    "adversarial/logits_fake", "learning_rate/autoencoder", "learning_rate/discriminator", "speed/frames_per_second",
    "speed/data_wait", "speed/reading", "speed/hours",
}  # fmt: skip
ADVERSARIAL = ("trainer.log_every=1", "loss.discriminator_start=0", "trainer.discriminator_every=1")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What W&B keeps outside a run folder goes to the test's own."""
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb" / name))


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))


def weights_and_biases(folder: Path, mode: Any = "auto", private: bool = False) -> WeightsAndBiases:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"project": "vqgan", "entity": None, "group": None, "tags": ["a"], "mode": mode, "upload": "reference"}
    return WeightsAndBiases(folder, {"seed": 3}, private, **values)


def test_each_row_has_step_and_time_and_scalars_by_panel(composed: Compose, tmp_path: Path) -> None:
    run(composed(*ADVERSARIAL))
    first, *trained, last = rows(tmp_path / "run")
    assert [row["step"] for row in (first, *trained, last)] == [0, 1, 2, 3]
    assert first["validation/psnr"] > 0
    assert last.keys() >= PANELS
    assert last["time"] > first["time"] > 1.7e9
    assert all("/" in name for name in last.keys() - {"step", "time"})


def test_rows_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    logger = JsonLines(tmp_path)
    logger.log(1, {"train/total": 0.5}, {})
    state = logger.state_dict()
    logger.log(2, {"train/total": 0.4}, {})
    with logger.metrics.file.open("a") as file:
        file.write('{"step": 3, "tra')  # killed while writing
    again = JsonLines(tmp_path)
    again.load_state_dict(state)
    again.log(2, {"train/total": 0.3}, {})
    assert [(row["step"], row["train/total"]) for row in rows(tmp_path)] == [(1, 0.5), (2, 0.3)]


def events_of(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    events.Reload()
    return events


def text(events: EventAccumulator, tag: str) -> str:
    return events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def hparams(events: EventAccumulator, tag: str) -> plugin_data_pb2.HParamsPluginData:
    content = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_tensorboard_has_the_same_scalars_each_step_once(resumed: Path) -> None:
    events, written = events_of(resumed), rows(resumed)
    names = {name for row in written for name in row} - {"step", "time"}
    assert set(events.Tags()["scalars"]) == names | {"best/psnr", "best/ssim", "best/step"}
    for name in names:
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert len(logged) == len(events.Scalars(name))
        expected = {row["step"]: row[name] for row in written if name in row}
        assert logged == pytest.approx(expected, rel=1e-5)


def test_the_hours_are_those_of_training(resumed: Path) -> None:
    """The time between the two lives counts in neither; TensorBoard's axis goes by the same clock."""
    hours = [row["speed/hours"] for row in rows(resumed)]
    assert hours == sorted(hours)
    first, *_, last = rows(resumed)
    assert 0 < hours[-1] - hours[0] <= (last["time"] - first["time"]) / 3600
    walls = [event.wall_time for event in events_of(resumed).Scalars("validation/psnr")]
    assert [wall - walls[0] for wall in walls] == pytest.approx([3600 * (hour - hours[0]) for hour in hours], abs=0.01)


def test_hours_that_a_checkpoint_does_not_know_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("vqgan.loggers.logger.time.monotonic", lambda: now)
    loggers = Loggers({})
    loggers.load_state_dict({})
    now = 2 * 3600.0
    state = loggers.state_dict()
    now = 5 * 3600.0
    again = Loggers({})
    now = 90 * 3600.0
    again.load_state_dict(state)
    now = 91 * 3600.0
    assert again.state_dict() == {"speed/hours": pytest.approx(3.0)}


def test_tensorboard_shows_pictures_and_moving_clips(resumed: Path) -> None:
    events = events_of(resumed)
    assert set(events.Tags()["images"]) == {"reconstructions/frames", "reconstructions/clips"}
    for name in events.Tags()["images"]:
        assert [picture.step for picture in events.Images(name)] == [0, 1, 2, 3, 4]
    shown = Image.open(io.BytesIO(events.Images("reconstructions/frames")[-1].encoded_image_string))
    still = Image.open(resumed / "reconstructions" / "step-00000004.png")
    assert (np.asarray(shown) == np.asarray(still)).all()
    event = events.Images("reconstructions/clips")[-1]
    clip = Image.open(io.BytesIO(event.encoded_image_string))
    assert (clip.format, getattr(clip, "n_frames", 1)) == ("GIF", 4), "three frames there, and the middle one back"
    assert clip.size == still.size == (event.width, event.height)
    clip.seek(1)
    assert abs(np.asarray(clip.convert("RGB"), float) - np.asarray(still, float)).mean() < 10, "the middle frames"


def test_tensorboard_tells_command_config_and_end(resumed: Path) -> None:
    events = events_of(resumed)
    assert "python train.py model=vqmodel trainer.steps=4 data.root=/videos name=try" in text(events, "run/command")
    config = yaml.safe_load(text(events, "run/config"))
    assert config["model"]["quantizer"]["codebook_size"] == 16
    assert config["facts"]["parameters"] > 1000
    assert text(events, "run/end") == "Finished."


def test_tensorboard_compares_runs_by_their_best_values(resumed: Path) -> None:
    events = events_of(resumed)
    values = hparams(events, "session_start_info").session_start_info.hparams
    assert values["model.quantizer.codebook_size"].number_value == 16
    assert not any("run_dir" in name or "data.root" in name for name in values)
    metrics = [info.name.tag for info in hparams(events, "experiment").experiment.metric_infos]
    assert metrics == ["best/psnr", "best/ssim", "best/lpips"]
    assert hparams(events, "session_end_info").session_end_info.status == api_pb2.STATUS_SUCCESS
    psnr = {row["step"]: row["validation/psnr"] for row in rows(resumed)}
    assert events.Scalars("best/psnr")[-1].value == pytest.approx(max(psnr.values()))
    assert psnr[int(events.Scalars("best/step")[-1].value)] == max(psnr.values())
    assert len(list((resumed / "tensorboard").rglob("events.*"))) == 2, "a file a life, and no further runs"


def test_tensorboard_groups_curves_that_belong_together(resumed: Path) -> None:
    (event,) = events_of(resumed).Tensors("custom_scalars__config__")[-1:]
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == [*CHARTS]
    shown = {tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag}
    measured = {name for row in rows(resumed) for name in row} - {"step", "time"}
    assert shown - measured == {"train/perceptual", "validation/lpips"}, "which this run has not"


def test_a_diverged_run_ends_as_one(tmp_path: Path) -> None:
    logger = TensorBoard(tmp_path, {}, False)
    logger.log(5, {"train/total": 1.0}, {})
    logger.close(DivergedError("Training diverged: it is not finite."))
    events = events_of(tmp_path)
    assert text(events, "run/end") == "Training diverged: it is not finite."
    assert hparams(events, "session_end_info").session_end_info.status == api_pb2.STATUS_FAILURE


def test_a_wandb_run_is_kept_offline_with_pictures_and_clips(composed: Compose, tmp_path: Path) -> None:
    trainer = run(composed("logger=wandb", "trainer.log_every=1", "data.clip_frames=2"))
    (offline,) = offline_runs(tmp_path / "run")
    assert trainer.journal.loggers.state_dict()["wandb"]["id"] in offline.name
    media = {file.suffix for file in (offline.parent / "files" / "media").rglob("*") if file.is_file()}
    assert media == {".png", ".mp4", ".json"}, "pictures, clips, and their table over the steps"
    content = offline.read_bytes()
    for name in (b"validation/psnr", b"train/total", b"codebook_size"):
        assert name in content
    assert wandb.run is None, "it is another process's"


def test_a_resumed_run_keeps_its_id(composed: Compose, tmp_path: Path) -> None:
    first = run(composed("logger=wandb", "trainer.steps=1")).journal.loggers.state_dict()["wandb"]["id"]
    again = run(composed("logger=wandb", "trainer.steps=2")).journal.loggers.state_dict()["wandb"]["id"]
    assert first == again
    assert {file.stem for file in offline_runs(tmp_path / "run")} == {f"run-{first}"}


def test_jobs_of_one_process_have_a_run_each(tmp_path: Path) -> None:
    ids = set()
    for number in (0, 1):
        logger = weights_and_biases(tmp_path / f"job{number}")
        logger.log(0, {"train/total": 1.0}, {})
        logger.close()
        ids.add(logger.id)
        assert len(offline_runs(tmp_path / f"job{number}")) == 1
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("variables", "netrc", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": "k" * 40}, None, "online"),
        ({}, "{host}", "online"),
        ({}, "elsewhere.example", "offline"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k" * 40}, None, "disabled"),
    ],
)
def test_the_mode_follows_the_login(
    variables: dict[str, str], netrc: str | None, mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if netrc is not None:
        host = wandb.setup().settings.base_url.removeprefix("https://")
        (tmp_path / "netrc").write_text(f"machine {netrc.format(host=host)}\n  login user\n  password {'k' * 40}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert chosen_mode() == mode


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_server_that_does_not_answer_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    logger = weights_and_biases(tmp_path, mode)
    logger.log(0, {"train/total": 1.0}, {})
    with pytest.warns(UserWarning, match=r"cannot be used online \(.*refused.*wandb sync .*wandb") as caught:
        logger.close()
    assert len(caught) == 1
    assert len(offline_runs(tmp_path)) == 1
    assert logger.summary() == ("W&B", f"offline; upload with: wandb sync {tmp_path / 'wandb'}")


def test_online_without_a_login_is_kept_offline(tmp_path: Path) -> None:
    logger = weights_and_biases(tmp_path, "online")
    logger.log(0, {"train/total": 1.0}, {})
    with pytest.warns(UserWarning, match=r"cannot be used online .*kept offline"):
        logger.close()
    assert len(offline_runs(tmp_path)) == 1


@pytest.mark.parametrize("make", [lambda folder: TensorBoard(folder, {}, False), weights_and_biases, JsonLines])
def test_nothing_is_opened_before_the_first_row(make: Any, tmp_path: Path) -> None:
    logger: Logger = make(tmp_path)
    logger.close()
    assert list(tmp_path.iterdir()) == []
