"""What a sweep's folder says, and what becomes of its jobs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from vqgan.config.build import conf_dir
from vqgan.errors import ConfigError, InvalidValueError
from vqgan.runs.criterion import Criterion
from vqgan.runs.sweep import agreed, definition_of, refuse_another_job, write_definition
from vqgan.sweeps.sweep import Sweep, exit_code, read_jobs, summary, values_of

PSNR = Criterion("validation/psnr")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        studies = [override for override in overrides if override.startswith("sweep=")]
        config = compose("train", studies, return_hydra_config=True)
    config.hydra.overrides.task = list(overrides)
    return config


def write_job(folder: Path, state: str, code: int | None = 0, message: str | None = None, psnr: float = 1.0) -> None:
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps({"state": state, "message": message, "exit_code": code}))
    (folder / "overrides.yaml").write_text(f"- a={folder.name}\n- b=1\n")
    rows = [{"step": step, "validation/psnr": value} for step, value in enumerate((99.0, psnr, psnr - 1))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep over `seed` with four jobs to come."""
    (tmp_path / "sweep.yaml").write_text("swept: {a: '0,1,2,3'}\nfixed: {b: '1'}\nstudy: null\n")
    return tmp_path


def test_what_is_varied_and_what_is_not() -> None:
    config = composed("seed=1,2", "name=x", "optimizer.lr=range(1,3)", "seed=3,4")
    found = definition_of(config)
    assert list(found.swept.items()) == [("seed", "3,4"), ("optimizer.lr", "range(1,3)")]
    assert found.fixed == {"name": "x"}


def test_a_study_is_part_of_it_and_what_is_typed_wins() -> None:
    found = definition_of(composed("sweep=codebook", "model.quantizer.latent_dim=4"))
    assert found.swept == {"model.quantizer.codebook_size": "256,1024,4096"}
    assert found.fixed == {"sweep": "codebook", "model.quantizer.latent_dim": "4"}


@pytest.mark.parametrize(
    ("overrides", "difference"),
    [
        (["seed=1,2", "trainer.steps=5,6", "name=x"], None),
        (["name=x", "seed=1,2", "trainer.steps=5,6", "data.workers=7", "logger=none", "run_dir=y"], None),
        (["seed=1,2,3", "trainer.steps=5,6", "name=x"], "seed: 1,2 there, 1,2,3 here"),
        (["seed=1,2", "trainer.steps=5", "name=x"], "trainer.steps: 5,6 there, 5 here"),
        (["seed=1,2", "trainer.steps=5,6"], "name: x there, None here"),
        (["trainer.steps=5,6", "seed=1,2", "name=x"], "first seed"),
    ],
)
def test_only_the_same_sweep_goes_on(overrides: list[str], difference: str | None, tmp_path: Path) -> None:
    write_definition(tmp_path, definition_of(composed("seed=1,2", "trainer.steps=5,6", "name=x")))
    again = definition_of(composed(*overrides))
    if difference is None:
        agreed(tmp_path, again)
        return
    with pytest.raises(ConfigError) as caught:
        agreed(tmp_path, again)
    assert f"is another one ({difference})" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "swept: 1\nfixed: {}", "a: [", "swept: {}"])
def test_a_damaged_definition_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"sweep\.yaml"):
        agreed(tmp_path, definition_of(composed("seed=1,2")))


def test_a_jobs_folder_stays_with_its_values(tmp_path: Path) -> None:
    (tmp_path / "overrides.yaml").write_text("[seed=1, name=x]")
    refuse_another_job(tmp_path, ["name=x", "seed=1", "run_dir=y", "sweep=z", "data.workers=3"])
    with pytest.raises(ConfigError, match="was made for another job: 'seed=2'"):
        refuse_another_job(tmp_path, ["seed=2", "name=x"])
    refuse_another_job(tmp_path / "new", ["seed=2"])


def test_the_end_says_what_became_of_each_job(sweep: Path) -> None:
    write_job(sweep / "0", "finished", psnr=20.0)
    write_job(sweep / "10", "failed", 5, "The disk is full.")
    write_job(sweep / "2", "diverged", 4, "Too far.\nMore.")
    write_job(sweep / "3", "finished", psnr=21.5)
    write_job(sweep / "4", "pruned")
    write_job(sweep / "5", "failed", 3, f"There is no folder {'far away ' * 30}.")
    write_job(sweep / "6", "failed", 3, f"There is no folder {'far away ' * 30}.")
    jobs = read_jobs(sweep)
    assert [job.folder.name for job in jobs] == ["0", "2", "3", "4", "5", "6", "10"]
    assert summary(jobs, PSNR) == [
        ("finished", "2"),
        ("diverged", "1"),
        ("pruned", "1"),
        ("failed", "3"),
        ("job 2", "diverged: a=2: Too far."),
        ("jobs 5, 6", f"failed: There is no folder {'far away ' * 15}far …"),
        ("job 10", "failed: a=10: The disk is full."),
        ("best", "job 3: a=3: validation/psnr 21.5"),  # neither the untrained network's nor the last evaluation
    ]


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([("finished", 0), ("pruned", 0)], 0),
        ([("finished", 0), ("diverged", 4)], 4),
        ([("diverged", 4), ("failed", 3), ("failed", 5)], 3),  # what another try may mend comes first
        ([("failed", 1), ("finished", 0)], 1),
        ([("running", None)], 1),  # whose process is gone
    ],
)
def test_the_exit_code(states: list[tuple[str, int | None]], code: int, sweep: Path) -> None:
    for number, (state, its) in enumerate(states):
        write_job(sweep / str(number), state, its)
    assert exit_code(read_jobs(sweep)) == code


def test_an_objective_can_be_minimized(sweep: Path) -> None:
    write_job(sweep / "0", "finished", psnr=20.0)
    smallest = Criterion("-validation/psnr")
    assert smallest.best(sweep / "0") == -19.0
    assert smallest.text(-19.0) == "validation/psnr 19"
    assert Criterion("validation/none").best(sweep / "0") is None
    with pytest.raises(InvalidValueError, match="objective must be the name of a scalar"):
        Criterion("psnr")


def test_the_processes_of_jobs_are_sent_a_copy_that_holds_nothing(tmp_path: Path) -> None:
    config = composed("seed=1,2")
    config.hydra.sweep.dir = str(tmp_path / "S")
    sweep = Sweep()
    sweep.on_multirun_start(config)
    assert vars(pickle.loads(pickle.dumps(sweep))) == {}
    with pytest.raises(SystemExit) as caught:
        Sweep().on_multirun_start(config)
    assert caught.value.code == 6
    sweep.lock.release()


def test_values_are_short() -> None:
    assert values_of(["optimizer.lr=0.00013869861245357332", "n=4096", "x=1.82552548e-05"]) == (
        "optimizer.lr=0.0001387 n=4096 x=1.826e-05"
    )
