"""The command line: what it prints, what it ends with, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.integration.conftest import SMALL, Ended
from vqgan.commands import main

ROOT = Path(__file__).resolve().parents[3]
TRAIN, VQGAN = str(ROOT / "train.py"), str(Path(sys.executable).with_name("vqgan"))


def command(*arguments: str, folder: Path) -> Ended:
    """Run a real command in a folder."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def steps(folder: Path) -> list[int]:
    return [json.loads(row)["step"] for row in (folder / "metrics.jsonl").read_text().splitlines()]


def run_folders(folder: Path) -> list[Path]:
    return list((folder / "runs").glob("*/*"))


@pytest.mark.parametrize("arguments", [(VQGAN, "completion", "bash"), (TRAIN, "--help"), (VQGAN, "train", "--help")])
def test_output_that_nobody_reads_ends_a_command_without_a_word(arguments: tuple[str, ...], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((TRAIN, "--help"), ["data=videos data.root=DIR", "f16, f8, ", "codebook_size: 1024"]),
        ((TRAIN, "--cfg", "job", "model=vqmodel"), ["codebook_weight: 1.0", "run_dir: runs/${name}/"]),
        ((VQGAN, "--help"), ["usage: vqgan COMMAND", "train          Train a tokenizer"]),
        ((VQGAN, "train", "--cfg", "job", "experiment=f16"), ["name: f16", "steps: 500000"]),
    ],
)
def test_questions_are_answered_without_loading_torch(
    arguments: tuple[str, ...], expected: list[str], tmp_path: Path
) -> None:
    ended = command("-X", "importtime", *arguments, folder=tmp_path)
    assert ended.code == 0
    for text in expected:
        assert text in ended.output
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.error.splitlines()}
    assert "hydra" in imported or "vqgan" in imported
    assert not imported & {"torch", "wandb", "tensorboard", "numpy"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argument", "code", "said"), [("evalute", 2, "Did you mean evaluate?"), ("--version", 0, version("vqgan"))]
)
def test_what_was_meant_and_which_version_it_is(
    argument: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vqgan", argument])
    with pytest.raises(SystemExit) if code else contextlib.nullcontext() as ended:
        main()
    assert ended is None or ended.value.code == code
    assert said in "".join(capsys.readouterr())


@pytest.mark.parametrize("arguments", [("nonsense",), ()])
def test_an_unknown_command_lists_those_there_are(arguments: tuple[str, ...], tmp_path: Path) -> None:
    ended = command(VQGAN, *arguments, folder=tmp_path)
    assert (ended.code, ended.output) == (2, "")
    assert ("Unknown command 'nonsense'." in ended.error) == bool(arguments)
    assert "  train  " in ended.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.stepz=3", "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'?"),
        ("optimizer.lr=-1", "optimizer.lr=-1 is refused by torch.optim.Adam: Invalid learning rate: -1."),
        ("model.quantizer._target_=os.system", "model.quantizer._target_ is 'os.system', which a config may not build"),
    ],
)
def test_a_real_command_ends_with_one_paragraph(override: str, message: str, tmp_path: Path) -> None:
    ended = command(TRAIN, *SMALL, override, folder=tmp_path)
    assert (ended.code, ended.output) == (2, "")
    assert ended.paragraph.startswith(message)
    assert run_folders(tmp_path) == []


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["backbone=f17"], 2, "backbone=f17: there is no such choice. Did you mean backbone=f16?"),
        (["a=[1"], 2, "'a=[1' cannot be read as key=value: "),
        (["data=videos", "data.root=~/no/such/videos"], 3, "data.root={home}/no/such/videos is not a folder. Name one"),
        (["data=videos", "data.root=~/a,~/b"], 2, "'data.root=~/a,~/b' cannot be read as key=value: "),
        (["--steps", "100"], 2, "--steps is no flag here: values are typed as key=value, steps=… perhaps."),
        (["trainer.steps=${no.where}"], 2, "trainer.steps cannot be resolved: Interpolation key 'no.where' not found."),
        (["run_dir=${oc.env:NO_SUCH}"], 2, "run_dir cannot be resolved: "),
        (["run_dir=null"], 2, "run_dir cannot be resolved: "),
        (["run_dir=file/below"], 5, "file/below cannot be used: Not a directory."),
        (["trainer.steps=-1"], 2, "trainer.steps must be positive, but is -1."),
        (["model=7"], 2, "Config group override must be a string or a list. Got int Typed: "),
        (["data=videos"], 2, "data.root has no value; give one on the command line: data.root=..."),
        (["data.root=empty"], 2, "data.root=empty was given without data=, "),
        (["experiment=f16", "data.root=no where"], 2, "data.root=no where was given without data=, "),
        (["data.val_root=empty"], 2, "data.val_root=empty was given without data=, "),
        (["data=videos", "data.root=empty"], 3, "data.root=empty "),
        (["data=videos", "data.root=nowhere"], 3, "data.root=nowhere "),
        (["loss=vqgan", "loss.perceptual.weights=no.pth"], 2, "loss.perceptual.weights names a file that does not"),
        (["loss=vqgan", "loss.perceptual.weights=file"], 2, "loss.perceptual.weights cannot be read as weights: file"),
        (["resume=nowhere"], 2, "resume=nowhere: there is no run in that folder (no config.yaml)."),
        (["resume=empty"], 2, "resume=empty: there is no run in that folder (no config.yaml)."),
        (["resume=broken"], 2, "broken/config.yaml is damaged: "),
        (["resume=other"], 2, "other/config.yaml is not the config of a run: "),
    ],
)
def test_a_mistake_ends_with_its_exit_code_and_leaves_nothing(
    overrides: list[str], code: int, message: str, typed: Callable[..., Ended], tmp_path: Path
) -> None:
    for name, text in {"broken": "a: [", "other": "a: 1", "empty": None}.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "config.yaml").write_text(text)
    (tmp_path / "file").write_text("text")
    ended = typed(*SMALL, *overrides)
    assert ended.code == code
    assert ended.paragraph.startswith(message.format(folder=tmp_path, home=Path.home()))
    assert run_folders(tmp_path) == []


@pytest.mark.slow
def test_no_job_of_a_multirun_takes_a_folder_for_synthetic_videos(typed: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    ended = typed(*SMALL, "-m", "data.root=mine", "seed=1,2")
    assert (ended.code, list((tmp_path / "mine").iterdir())) == (2, [])
    assert ended.paragraph.startswith("data.root=mine was given without data=, ")
    assert typed(*SMALL, "data=synthetic", "data.root=mine", "run_dir=R").code == 0


def test_an_experiment_that_is_not_yaml_is_named(typed: Callable[..., Ended], tmp_path: Path) -> None:
    file = tmp_path / "mine" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ntrainer: [\n")
    ended = typed("--config-dir", str(tmp_path / "mine"), "experiment=mine", *SMALL)
    assert ended.code == 2
    assert "mine.yaml" in ended.paragraph


def test_the_same_run_dir_again_continues_that_run(typed: Callable[..., Ended], tmp_path: Path) -> None:
    assert typed(*SMALL, "run_dir=R").code == 0
    assert steps(tmp_path / "R") == [0, 1]
    assert typed(*SMALL, "run_dir=R", "trainer.steps=3").code == 0
    assert steps(tmp_path / "R") == [0, 1, 2, 3]


def test_a_run_that_is_done_can_be_asked_for_again(typed: Callable[..., Ended], tmp_path: Path) -> None:
    assert typed(*SMALL, "run_dir=R").code == 0
    ended = typed(*SMALL, "run_dir=R")
    assert ended.code == 0
    assert "validation PSNR" in ended.output
    assert steps(tmp_path / "R") == [0, 1]


def test_resume_keeps_the_runs_own_config(typed: Callable[..., Ended], tmp_path: Path) -> None:
    chosen = ("model=vqmodel", "schedule=cosine", "schedule.warmup_steps=0", "run_dir=(R) it's")
    chosen = (*chosen[:3], "run_dir='(R) it\\'s'")
    assert typed(*SMALL, *chosen).code == 0
    folder = tmp_path / "(R) it's"
    # codebook_weight and final_factor are keys of this run's choices, not of the demo's
    changed = ("trainer.steps=2", "model.quantizer.codebook_size=16", "schedule.final_factor=0.5")
    with pytest.warns(UserWarning, match=r"no longer exactly .* schedule.final_factor was 0.1 and is 0.5"):
        assert typed("resume='(R) it\\'s'", *changed).code == 0
    assert steps(folder) == [0, 1, 2]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["quantizer"]["_target_"] == "vqgan.quantizers.VectorQuantizer"
    assert (config["trainer"]["steps"], config["schedule"]["final_factor"]) == (2, 0.5)
    assert config["data"]["resolution"] == "${backbone.resolution}"
    assert yaml.safe_load((folder / "overrides.yaml").read_text()) == [*SMALL, *chosen, *changed]
    assert run_folders(tmp_path) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=vqmodel"], "With resume=, single values can be changed (key.name=value), but not 'model=vqmodel'"),
        (["experiment=f16"], "With resume=, single values can be changed (key.name=value), but not 'experiment=f16'"),
        (["~trainer.steps"], "With resume=, single values can be changed (key.name=value), but not '~trainer.steps'"),
        (["-m"], "resume= continues one run: leave --multirun out."),
        (["trainer.stepz=2"], "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'?"),
        (["+trainer.stepz=2"], "Unknown key 'trainer.stepz'. Did you mean 'trainer.steps'?"),
        (
            ["backbone.latent_dim=8"],
            "Unknown key 'backbone.latent_dim'. backbone.latent_dim is now model.quantizer.latent_dim",
        ),
        (["trainer.steps=-2"], "trainer.steps must be positive, but is -2."),
        (
            ["backbone.latent_channels=8"],
            "The run in {folder}/R has another backbone (backbone.latent_channels: 32 there, 8 here)",
        ),
    ],
)
def test_resume_changes_values_only(
    overrides: list[str], message: str, typed: Callable[..., Ended], tmp_path: Path
) -> None:
    assert typed(*SMALL, "run_dir=R").code == 0
    before = {name: (tmp_path / "R" / name).read_text() for name in ("config.yaml", "overrides.yaml", "metrics.jsonl")}
    ended = typed("resume=R", *overrides)
    assert ended.code == 2
    assert ended.paragraph.startswith(message.format(folder=tmp_path))
    assert before == {name: (tmp_path / "R" / name).read_text() for name in before}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=vqmodel", "The run in {folder}/R has another model (model.quantizer."),
        (
            "discriminator.layers=1",
            "The run in {folder}/R has another discriminator (discriminator.layers: 2 there, 1 her",
        ),
        ("data.flip=3", "data.flip must be true or false, but is 3."),
    ],
)
def test_a_run_dir_keeps_its_config_when_another_is_refused(
    override: str, message: str, typed: Callable[..., Ended], tmp_path: Path
) -> None:
    assert typed(*SMALL, "run_dir=R").code == 0
    before = (tmp_path / "R" / "config.yaml").read_bytes()
    ended = typed(*SMALL, "run_dir=R", override)
    assert ended.code == 2
    assert ended.paragraph.startswith(message.format(folder=tmp_path))
    assert (tmp_path / "R" / "config.yaml").read_bytes() == before
    assert typed("resume=R", "trainer.steps=2").code == 0


@pytest.mark.slow
def test_a_run_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "R"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        (folder / ".owner").write_text("process 4711 on elsewhere")
        ended = command(TRAIN, *SMALL, "run_dir=R", folder=tmp_path)
        assert (ended.code, ended.output) == (6, "")
        assert "R is in use by process 4711 on elsewhere. Wait for it, or choose another run_dir." in ended.paragraph
        assert {path.name for path in folder.iterdir()} == {".lock", ".owner"}


@pytest.mark.slow
def test_a_multirun_makes_a_run_folder_per_job(typed: Callable[..., Ended], tmp_path: Path) -> None:
    assert typed(*SMALL, "run_dir=sweep", "-m", "model=vqmodel,emavq").code == 0
    targets = [
        yaml.safe_load((tmp_path / "sweep" / job / "config.yaml").read_text())["model"]["quantizer"]["_target_"]
        for job in ("0", "1")
    ]
    assert targets == ["vqgan.quantizers.VectorQuantizer", "vqgan.quantizers.EMAQuantizer"]
    assert [steps(tmp_path / "sweep" / job) for job in ("0", "1")] == [[0, 1], [0, 1]]


@pytest.mark.slow
def test_the_other_jobs_of_a_multirun_go_on_after_a_mistake(typed: Callable[..., Ended], tmp_path: Path) -> None:
    ended = typed("-m", *SMALL, "run_dir=sweep", "optimizer.lr=-1,0.001")
    assert ended.code == 2
    assert ended.paragraph.startswith("Job 0: optimizer.lr=-1 is refused by torch.optim.Adam")
    assert {path.name for path in (tmp_path / "sweep" / "0").iterdir()} == {"status.json", "overrides.yaml"}
    assert steps(tmp_path / "sweep" / "1") == [0, 1]


@pytest.mark.slow
def test_no_value_from_the_environment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2-hunter2")
    secret = "loss.perceptual.weights=${oc.env:SECRET}"
    ended = command(TRAIN, *SMALL, "run_dir=R", "logger=[wandb,tensorboard]", secret, folder=tmp_path)
    assert ended.code == 0, ended.error
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"events", "run-"} <= {name for path in files for name in ("events", "run-") if path.name.startswith(name)}
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []
    assert secret in (tmp_path / "R" / "overrides.yaml").read_text()
    assert "hunter2" not in ended.output + ended.error


@pytest.mark.slow
def test_the_installed_command_trains(tmp_path: Path) -> None:
    ended = command(VQGAN, "train", *SMALL, "run_dir=R", folder=tmp_path)
    assert (ended.code, ended.error) == (0, "")
    assert "Done." in ended.output
    assert steps(tmp_path / "R") == [0, 1]
