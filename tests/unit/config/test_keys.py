"""What each key is, and that all who ask agree."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vqgan.config.build import conf_dir
from vqgan.config.keys import (
    FREE_IN_A_SWEEP,
    KEYS,
    SECTIONS,
    TOP_LEVEL,
    Is,
    by_full_key,
    is_among,
    keys_that_are,
    of_kind,
)
from vqgan.config.moved import as_today
from vqgan.errors import ConfigError
from vqgan.loggers.wandb.identity import name_of
from vqgan.loggers.wandb.logger import without_names
from vqgan.reports.trial import read_trial
from vqgan.reports.varied import varied
from vqgan.runs.folder import RunFolder
from vqgan.runs.provenance import make_provenance, not_neutral
from vqgan.runs.sweep import Definition, agreed, refuse_another_job, write_definition
from vqgan.tokenizer.export import recipe_in

GROUPS = sorted(file for key in SECTIONS for file in (conf_dir() / key).rglob("*.yaml"))
COMMANDS = ("shard", "encode", "decode", "evaluate", "pack", "sample")  # whose values are of no run
RECIPES = [file for file in conf_dir().glob("*.yaml") if file.stem not in COMMANDS]
RECIPES += sorted((conf_dir() / "experiment").glob("*.yaml"))
# What the storage's error advises to change, and where the index of shards from afar is kept.
AFAR = ["data.cache=elsewhere", "data.request_seconds=60", "data.request_attempts=9"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", ["data=shards", "data.root=videos", *overrides])


def leaves(node: yaml.Node, lines: list[str], path: str) -> Iterator[tuple[str, str, str]]:
    """Each value of a yaml by its full key, as text, and its comment."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if (path, name.value) not in (("", "defaults"), ("", "hydra")):
                yield from leaves(value, lines, f"{path}.{name.value}".removeprefix("."))
    elif isinstance(node, yaml.ScalarNode):
        comment = lines[node.end_mark.line][node.end_mark.column :].strip().removeprefix("#").strip()
        yield path, node.value, comment


def is_path(value: str, comment: str) -> bool:
    """Whether a value looks like one, or stands for one that is to be typed."""
    named = re.match(r"an? .*\b(folder|file)\b", comment) is not None
    return "/" in value or value.startswith("~") or value == "???" or (value == "null" and named)


def paths_in(file: Path) -> set[str]:
    text = file.read_text()
    node = yaml.compose(text)
    parts = file.parent.relative_to(conf_dir()).parts
    section = ".".join(parts) if parts and parts[0] in SECTIONS else ""
    return {key for key, value, comment in leaves(node, text.splitlines(), section) if is_path(value, comment)}


def test_every_path_of_every_config_is_a_place() -> None:
    found = set[str]().union(*map(paths_in, [*GROUPS, *RECIPES])) - {"objective"}  # the name of a metric
    assert found == set(keys_that_are(Is.PLACE)), "a key has no line in the table, or a line no key"


def test_every_key_of_the_table_is_in_some_config() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        of_a_prior = compose("prior", ["data.root=tokens"])
    assert set(of_a_prior) == set(of_kind(TOP_LEVEL, of_a_prior))
    known = set(TOP_LEVEL)
    for data, discriminator in (("shards", "patchgan"), ("videos", "dino"), ("images", "blur")):
        typed = ("loss=vqgan", "logger=mlflow", f"data={data}", f"discriminator={discriminator}")
        config = OmegaConf.to_container(composed(*typed), resolve=False)
        assert isinstance(config, dict)
        assert set(config) == set(of_kind(TOP_LEVEL, config))
        assert {key for key, value in config.items() if isinstance(value, dict)} == set(of_kind(SECTIONS, config))
        known |= {key for key, _ in by_full_key({str(name): value for name, value in config.items()})}
    assert [key for key in KEYS if not any(is_among(one, [key]) for one in known)] == []


def test_no_flag_is_only_said() -> None:
    assert [flag for flag in Is if not keys_that_are(flag)] == []


def test_the_table_costs_no_time() -> None:
    heavy = "{'torch', 'numpy', 'hydra', 'omegaconf'}"
    asked = f"import sys, vqgan.config.keys; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True, text=True).stdout == "[]\n"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a run on shards, with a checkpoint."""
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    OmegaConf.save(composed(), tmp_path / "config.yaml")
    return tmp_path


def test_a_run_on_shards_goes_on_as_the_storage_s_error_advises(saved: Path) -> None:
    with RunFolder(saved, composed(*AFAR), AFAR) as folder:
        folder.keep()
    assert OmegaConf.load(saved / "config.yaml").data.request_seconds == 60
    other = RunFolder(saved, composed(*AFAR, "data.stride=2"), [])
    with pytest.raises(ConfigError, match=r"has another data \(data.stride: 1 there, 2 here\)"), other:
        pass


def test_no_number_depends_on_how_shards_from_afar_are_read() -> None:
    then, now = (
        make_provenance(OmegaConf.to_container(composed("run_dir=x", *typed), resolve=True), torch.device("cpu"), "d")  # type: ignore[arg-type]
        for typed in ([], AFAR)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        now.load_state_dict(then.state_dict())
    assert "data.stride" in not_neutral({"data": {"stride": 1}})


@pytest.mark.parametrize("typed", [*AFAR, "data.limits.seconds=60", "loss.perceptual.weights=vgg16.pth"])
def test_a_sweep_goes_on_where_only_the_machine_s_values_change(typed: str, tmp_path: Path) -> None:
    write_definition(tmp_path, Definition({"seed": "1,2"}, {"data": "shards"}))
    key, _, value = typed.partition("=")
    agreed(tmp_path, Definition({"seed": "1,2"}, {"data": "shards", key: value}))
    job = tmp_path / "0"
    job.mkdir()
    (job / "overrides.yaml").write_text("[seed=1, data=shards]")
    refuse_another_job(job, ["seed=1", "data=shards", typed])


@pytest.mark.parametrize("key", ["init_from", "trainer.steps", "data.batch_size", "trainer.evaluate_every"])
def test_a_sweep_does_not_go_on_with_other_results(key: str) -> None:
    assert not is_among(key, FREE_IN_A_SWEEP)


def test_a_run_is_not_called_by_how_shards_from_afar_are_read(tmp_path: Path) -> None:
    typed = [*AFAR, "loss.perceptual.weights=vgg16.pth", "data.max_bad_files=7", "init_from=old"]
    (tmp_path / "overrides.yaml").write_text(OmegaConf.to_yaml(typed))
    assert name_of(tmp_path) == "data.max_bad_files=7,init_from=old"


def test_how_shards_from_afar_are_read_is_not_varied(tmp_path: Path) -> None:
    trials = []
    for name, typed in (("one", []), ("other", [*AFAR, "seed=1"])):
        (tmp_path / name).mkdir()
        OmegaConf.save(composed(*typed), tmp_path / name / "config.yaml")
        trials.append(read_trial(tmp_path / name, name, 10))
    assert [key.name for key in varied(trials)] == ["seed"]


@pytest.fixture
def filled() -> dict[str, Any]:
    """The values of a config in which each place has a name that gives somebody away, though it is no path."""
    config = composed("loss=vqgan", "logger=mlflow", "discriminator=dino", "+data.index=null")
    for key in (*keys_that_are(Is.PLACE), "name"):
        OmegaConf.update(config, key, "doctor-mabuse")
    values: Any = OmegaConf.to_container(config, resolve=False)
    assert str(values).count("doctor-mabuse") == len(keys_that_are(Is.PLACE)) + 1
    return dict(values)


def test_no_place_reaches_a_model_card(filled: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(filled))
    recipe = recipe_in(tmp_path)
    assert "mabuse" not in recipe
    assert "allow_other" not in recipe
    assert "discriminator_start: 10000" in recipe


def test_no_place_of_a_private_run_reaches_weights_and_biases(filled: dict[str, Any]) -> None:
    filled["facts"] = {"data_fingerprint": "doctor-mabuse", "codes": 256}
    filled["trainer"]["device"] = "/dev/mabuse"
    shown = without_names(filled)
    assert "mabuse" not in str(shown)
    assert (shown["facts"], shown["trainer"]["device"]) == ({"codes": 256}, "private")
    assert shown["data"]["stride"] == 1


@pytest.mark.parametrize(
    ("target", "said", "expected"),
    [
        ("EMAQuantizer", {}, "straight_through"),
        ("VectorQuantizer", {"gradient": "rotation"}, "rotation"),
        ("FiniteScalarQuantizer", {}, None),
    ],
)
def test_runs_that_do_not_say_how_gradients_pass_let_them_straight_through(
    target: str, said: dict[str, str], expected: str | None
) -> None:
    quantizer = {"_target_": f"vqgan.quantizers.{target}", **said}
    found = as_today({"backbone": {}, "model": {"quantizer": quantizer}, "loss": {}})
    assert found["model"]["quantizer"].get("gradient") == expected
