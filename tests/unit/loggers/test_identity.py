"""How runs are called where many are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vqgan.loggers.wandb.identity import LONGEST_NAME, choices, name_of, sweep_of, tags_of


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (["model=emavq", "optimizer.lr=0.001"], "model=emavq,optimizer.lr=0.001"),
        (["+data.stride=2", "++seed=3"], "data.stride=2,seed=3"),
        (["name=mine", "experiment=f16"], "mine,experiment=f16"),
        (["~schedule"], "~schedule"),
        (["model=emavq", "data.root=/home/me/videos", "run_dir=x", "logger=none", "trainer.keep=3"], "model=emavq"),
        (["init_from=runs/old", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "sweep=x"], "the/run"),
        ([], "the/run"),
    ],
)  # fmt: skip
def test_a_run_is_called_by_what_was_typed(tmp_path: Path, typed: list[str], name: str) -> None:
    folder = tmp_path / "the" / "run"
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text(OmegaConf.to_yaml(typed))
    assert name_of(folder) == name


def test_a_run_without_a_record_of_what_was_typed_has_its_folder_s_name(tmp_path: Path) -> None:
    assert name_of(tmp_path / "the" / "run") == "the/run"


def test_a_long_name_is_shortened_from_its_beginning(tmp_path: Path) -> None:
    typed = ["model.quantizer.codebook_size=1024", "loss.discriminator_start=2000", "loss.discriminator_weight=0.25"]
    (tmp_path / "overrides.yaml").write_text(OmegaConf.to_yaml([*typed, "optimizer.lr=0.5"]))
    assert name_of(tmp_path) == "codebook_size=1024,discriminator_start=2000,discriminator_weight=0.25,lr=0.5"
    (tmp_path / "overrides.yaml").write_text(OmegaConf.to_yaml(typed * 3 + ["optimizer.lr=0.5"]))
    assert len(name_of(tmp_path)) == LONGEST_NAME
    assert name_of(tmp_path).startswith("…")
    assert name_of(tmp_path).endswith("discriminator_weight=0.25,lr=0.5")


def test_a_job_of_a_multirun_is_called_by_what_it_has_not_in_common_with_the_others(tmp_path: Path) -> None:
    job = tmp_path / "3"
    job.mkdir()
    (job / "overrides.yaml").write_text(OmegaConf.to_yaml(["trainer.steps=9", "model=emavq", "seed=2"]))
    assert name_of(job) == "trainer.steps=9,model=emavq,seed=2"
    definition = {"swept": {"model": "emavq,vqmodel", "seed": "1,2"}, "fixed": {"trainer.steps": "9"}, "study": None}
    (tmp_path / "sweep.yaml").write_text(OmegaConf.to_yaml(definition))
    assert name_of(job) == "model=emavq,seed=2"
    (tmp_path / "sweep.yaml").write_text("swept: [")
    assert name_of(job) == "trainer.steps=9,model=emavq,seed=2", "a damaged record ends nothing"


def test_jobs_of_a_multirun_belong_together(tmp_path: Path) -> None:
    job = tmp_path / "vqgan" / "today" / "3"
    assert sweep_of(job) is None
    job.mkdir(parents=True)
    (job.parent / "sweep.yaml").touch()
    assert sweep_of(job) == "vqgan/today"


def test_choices_of_the_telling_groups_are_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choices() == {}, "nothing was composed by Hydra"
    chosen = {"model": "emavq", "backbone": "f16", "data": "videos", "experiment": None, "logger": "wandb"}
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"runtime": {"choices": chosen}}))
    assert tags_of(choices()) == ["model=emavq", "backbone=f16", "data=videos"]
