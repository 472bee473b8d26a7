"""Secrets stay in the environment, and a private run tells nobody what it is about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.runs import ROOT, SMALL
from vqgan.loggers import WeightsAndBiases

pytestmark = pytest.mark.slow

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_TheTokenThatNobodyMaySee",
    "MY_SETTING": "hunter2-hunter2-hunter2",
}


def everything_said_and_written(folder: Path, *overrides: str, environment: dict[str, str]) -> dict[str, bytes]:
    """Train in `folder`; console, and the content of every file that is there afterwards."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *SMALL, "run_dir=run", "trainer.steps=3", *overrides],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
    return files | {"console": done.stdout + done.stderr, "code": str(done.returncode).encode()}


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["logger=[wandb,tensorboard]"], b"0"),
        (["optimizer.lr=${oc.env:WANDB_API_KEY}"], b"2"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["logger=wandb", "loss.perceptual.weights=${oc.env:MY_SETTING}"], b"0"),
                (["optimizer.lr=${oc.env:MY_SETTING}"], b"2"),
                (["trainer.device=${oc.env:HF_TOKEN}"], b"2"),
                (["+logger.key=${oc.env:WANDB_API_KEY}"], b"2"),
                (["init_from=${oc.env:MY_SETTING}"], b"2"),
            )
        ),
    ],
)
def test_no_value_of_the_environment_is_said_or_written(tmp_path: Path, overrides: list[str], code: bytes) -> None:
    """W&B would go online with a key: it is told that there is no server."""
    where = {"WANDB_BASE_URL": "http://127.0.0.1:9", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in ("CACHE", "CONFIG", "DATA"):
        where[f"WANDB_{name}_DIR"] = str(tmp_path / "wandb" / name)
    found = everything_said_and_written(tmp_path, *overrides, environment={**SECRETS, **where})
    assert found["code"] == code, found["console"].decode()
    for name, secret in SECRETS.items():
        assert [path for path, content in found.items() if secret.encode() in content] == [], name
    if code == b"0":
        assert any(path.endswith(".wandb") for path in found)
        assert any(path.endswith("state.pt") for path in found)


def test_a_private_run_uploads_no_frames_names_or_paths(tmp_path: Path) -> None:
    data = tmp_path / "patients-of-doctor-mabuse"
    folder = tmp_path / "the-secret-project" / "run-of-tuesday"
    folder.mkdir(parents=True)
    config = {
        "name": "the-secret-project", "run_dir": str(folder), "resume": None, "seed": 3,
        "data": {"root": str(data), "val_root": None, "resolution": 64}, "trainer": {"steps": 77},
        "loss": {"perceptual": {"weights": str(data / "vgg.pth")}},
    }  # fmt: skip
    picture = folder / "step-00000001.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    for private in (False, True):
        logger = WeightsAndBiases(
            folder, config, private, project="p", entity=None, group=None, tags=[], mode="offline", upload="reference"
        )
        logger.log(1, {"train/total": 0.25}, {"reconstructions/frames": picture})
        logger.close()
        (run,) = [path for path in (folder / "wandb").glob("offline-run-*") if logger.id and logger.id in path.name]
        files = [path for path in run.rglob("*") if path.is_file() and "logs" not in path.parts]
        content = b"".join(path.read_bytes() for path in files)
        told = [word for word in (b"patients", b"secret-project", b"tuesday", b"state.pt") if word in content]
        machine = [word for word in (os.uname().nodename.encode(), str(tmp_path).encode()) if word in content]
        assert b"train/total" in content
        assert b"resolution" in content, "what is no name or path may be told"
        if private:
            assert told == machine == []
            assert [path for path in files if path.suffix in (".png", ".mp4", ".jpg")] == []
        else:
            assert told, "the search would find them"
            assert any(path.suffix == ".png" for path in files)


@pytest.mark.slow
def test_private_is_one_word_for_all_loggers(tmp_path: Path) -> None:
    found = everything_said_and_written(
        tmp_path, "logger=wandb", "logger.private=true", "logger.wandb.mode=offline",
        environment={"XDG_CACHE_HOME": str(tmp_path / "cache"), "WANDB_DATA_DIR": str(tmp_path / "data")},
    )  # fmt: skip
    assert found["code"] == b"0", found["console"].decode()
    uploaded = {p: c for p, c in found.items() if "offline-run" in p and "/logs/" not in p}
    assert any(path.endswith(".wandb") for path in uploaded)
    assert [path for path, content in uploaded.items() if str(tmp_path).encode() in content] == []
    assert not any("/media/" in path for path in uploaded)
    assert json.loads(found[str(tmp_path / "run" / "metrics.jsonl")].splitlines()[-1])["step"] == 3
