"""`logger=mlflow`, read back by MLflow's own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Compose
from vqgan.errors import ConfigError, StoppedError
from vqgan.loggers import MLflow
from vqgan.training.run import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # the package has its own ones
EVERY = ("trainer.log_every=1", "trainer.evaluate_every=2", "trainer.checkpoint_every=2")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store; what is kept beside it lies in the test's own folder."""
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def only_run(store: str, experiment: str = "vqgan") -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, found


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_has_every_row_once_in_the_same_panels(composed: Compose, store: str, tmp_path: Path) -> None:
    typed = ("logger=mlflow", f"logger.mlflow.uri={store}", "data.clip_frames=2", *EVERY)
    run(composed("trainer.steps=3", *typed), ["model=emavq", "trainer.steps=3"])
    run(composed("trainer.steps=5", *typed), ["model=emavq", "trainer.steps=5"])
    client, found = only_run(store)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    for name in ("train/total", "validation/psnr", "codebook/perplexity", "learning_rate/autoencoder", "speed/hours"):
        expected = {row["step"]: row[name] for row in rows(tmp_path / "run") if name in row}
        history = client.get_metric_history(found.info.run_id, name)
        assert [one.step for one in history] == sorted(expected), name
        if not name.startswith("speed/"):
            assert {one.step: one.value for one in history} == pytest.approx(expected)
    assert found.data.params["model.quantizer.codebook_size"] == "16"
    assert float(found.data.params["facts.bits_per_pixel"]) > 0
    best = max(row["validation/psnr"] for row in rows(tmp_path / "run")[1:] if "validation/psnr" in row)
    assert found.data.metrics["best/psnr"] == pytest.approx(best)
    assert found.data.tags["command"].startswith("python train.py model=emavq trainer.steps=")
    assert found.data.tags["end"] == "Finished."
    kept = [file.name for file in (tmp_path / "mlruns").rglob("*") if file.is_file()] or [
        file.name for file in tmp_path.rglob("artifacts/**/*") if file.is_file()
    ]
    assert {Path(name).suffix for name in kept} >= {".png", ".mp4"}


def test_how_a_run_ended_is_its_status(store: str, tmp_path: Path) -> None:
    for error, status in ((StoppedError("Stopped."), "KILLED"), (ValueError("a bug"), "FAILED")):
        logger = MLflow(tmp_path / status, {"seed": 1}, False, store, status)
        logger.log(1, {"train/total": 1.0}, {})
        logger.close(error)
        _, found = only_run(store, status)
        assert (found.info.status, found.data.tags["end"]) == (status, str(error))


def test_a_private_run_tells_another_machine_nothing_of_the_data(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqgan.loggers.mlflow.LOCAL", ())  # as if the store were elsewhere
    config = {"seed": 1, "model": {"file": "/secret/place"}, "facts": {"data_fingerprint": "secret", "codes": 4}}
    logger = MLflow(tmp_path / "secret run", config, True, store, "secret experiment")
    picture = tmp_path / "secret.png"
    picture.write_bytes(b"no picture, and never opened")
    logger.log(1, {"train/total": 1.0}, {"reconstructions/frames": picture})
    logger.close(ValueError("secret"))
    assert not logger.lost
    _, found = only_run(store, "private")
    told = str(found.to_dictionary()).replace(store, "").replace(str(tmp_path), "")
    assert "secret" not in told
    assert found.data.params["facts.codes"] == "4"


def test_a_store_that_fails_ends_no_run(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    uri = f"sqlite:///{tmp_path}/file/x.db"
    with pytest.warns(UserWarning, match=rf"logger.mlflow.uri={uri} cannot be used \("):
        run(composed("logger=mlflow", f"logger.mlflow.uri={uri}", *EVERY))
    assert rows(tmp_path / "run")[-1]["step"] == 3


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"logger=mlflow needs an extra: .*\[mlflow\]"):
        MLflow(tmp_path, {}, False, "sqlite:///x.db", "vqgan")
