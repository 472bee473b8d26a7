"""What the loggers leave behind, read back as their own tools would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Compose
from vqgan.loggers import JsonLines, Logger, TensorBoard, WeightsAndBiases
from vqgan.loggers.wandb_process import chosen_mode
from vqgan.train import run

PANELS = {
    "train/total", "train/pixel", "train/quantization", "train/adversarial", "train/discriminator", "validation/psnr",
    "validation/ssim", "codebook/perplexity", "codebook/usage", "adversarial/weight", "adversarial/logits_real",
    "adversarial/logits_fake", "learning_rate/autoencoder", "learning_rate/discriminator", "speed/frames_per_second",
    "speed/data_wait",
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
    values = {"project": "vqgan", "entity": None, "group": None, "tags": ["a"], "mode": mode}
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


def test_tensorboard_has_the_same_scalars_and_the_pictures(composed: Compose, tmp_path: Path) -> None:
    run(composed(*ADVERSARIAL, "logger=tensorboard", "trainer.steps=2", "data.clip_frames=2"))
    run(composed(*ADVERSARIAL, "logger=tensorboard", "trainer.steps=3", "data.clip_frames=2"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    written = rows(tmp_path / "run")
    names = {name for row in written for name in row} - {"step", "time"}
    assert set(events.Tags()["scalars"]) == names
    for name in names:
        logged = {event.step: event.value for event in events.Scalars(name)}
        expected = {row["step"]: row[name] for row in written if name in row}
        assert logged == pytest.approx(expected, rel=1e-5)
    pictures = events.Images("reconstructions/frames")
    assert [picture.step for picture in pictures] == [0, 2, 3]
    assert events.Tags()["images"] == ["reconstructions/frames"]


def test_a_wandb_run_is_kept_offline_with_pictures_and_clips(composed: Compose, tmp_path: Path) -> None:
    trainer = run(composed("logger=wandb", "trainer.log_every=1", "data.clip_frames=2"))
    (offline,) = offline_runs(tmp_path / "run")
    assert trainer.loggers.state_dict()["wandb"]["id"] in offline.name
    media = {file.suffix for file in (offline.parent / "files" / "media").rglob("*") if file.is_file()}
    assert media == {".png", ".mp4"}
    content = offline.read_bytes()
    for name in (b"validation/psnr", b"train/total", b"codebook_size"):
        assert name in content
    assert wandb.run is None, "it is another process's"


def test_a_resumed_run_keeps_its_id(composed: Compose, tmp_path: Path) -> None:
    first = run(composed("logger=wandb", "trainer.steps=1")).loggers.state_dict()["wandb"]["id"]
    again = run(composed("logger=wandb", "trainer.steps=2")).loggers.state_dict()["wandb"]["id"]
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
    with pytest.warns(UserWarning, match=r"cannot be used online \(.*refused.*wandb sync .*offline-run") as caught:
        logger.close()
    assert len(caught) == 1
    assert len(offline_runs(tmp_path)) == 1
    assert logger.summary() == ("W&B", f"offline; upload with: wandb sync {offline_runs(tmp_path)[0].parent}")


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


def test_a_picture_is_shown_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    logger = TensorBoard(tmp_path, {}, False)
    logger.log(5, {}, {"reconstructions/frames": tmp_path / "a.png", "reconstructions/clips": tmp_path / "a.mp4"})
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (picture,) = events.Images("reconstructions/frames")
    (tmp_path / "b.png").write_bytes(picture.encoded_image_string)
    assert (np.asarray(Image.open(tmp_path / "b.png")) == pixels).all()
