"""Every study of `sweeps/`, found by looking: it asks a question, and all that its command runs composes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from vqgan.config.build import check_top_level, conf_dir

SWEEPS = Path(__file__).resolve().parents[3] / "sweeps"
HYDRA, WANDB = (sorted((SWEEPS / engine).glob("*.yaml")) for engine in ("hydra", "wandb"))


@pytest.fixture
def composed() -> Iterator[Callable[..., DictConfig]]:
    """Compose as the command line would."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield lambda *overrides, **values: compose("train", list(overrides), **values)


@pytest.mark.parametrize("file", HYDRA, ids=lambda file: file.stem)
def test_a_hydra_study_composes(file: Path, composed: Callable[..., DictConfig]) -> None:
    package, question, command = file.read_text().splitlines()[:3]
    assert package in ("# @package hydra.sweeper", "# @package hydra")
    assert question.endswith("?")
    assert command.startswith(f"# python train.py -m sweep={file.stem} ")
    typed = shlex.split(command)[4:]
    assert (conf_dir() / "sweep" / file.name).read_text() == file.read_text()
    params = composed(*typed, return_hydra_config=True).hydra.sweeper.params
    parsed = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    assert any(override.is_sweep_override() for override in parsed)
    ends: list[list[str]] = []
    for override in parsed:
        if not override.is_sweep_override():  # what the question needs in all runs
            ends.append([str(override.input_line)])
            continue
        key, value = override.get_key_element(), override.value()
        values = [value.start, value.end] if override.is_interval_sweep() else override.sweep_string_iterator()
        ends.append([f"{key}={v}" for v in values])
    for combination in each_value(ends):
        check_top_level(composed(*typed, *combination))


@pytest.mark.parametrize("file", WANDB, ids=lambda file: file.stem)
def test_a_wandb_sweep_composes(file: Path, composed: Callable[..., DictConfig]) -> None:
    question, command = file.read_text().splitlines()[:2]
    assert question.endswith("?")
    assert f"wandb sweep sweeps/wandb/{file.name}" in command
    sweep = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(sweep, dict)
    assert (SWEEPS.parent / sweep["program"]).is_file()
    assert sweep["method"] in ("grid", "random", "bayes")
    assert "run_cap" in sweep or sweep["method"] == "grid"
    fixed = [word for word in sweep["command"] if not word.startswith("${")]
    assert sweep["command"][:3] == ["${env}", "${interpreter}", "${program}"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    values = [
        [parameter["value"]]
        if "value" in parameter
        else parameter.get("values") or [parameter["min"], parameter["max"]]
        for parameter in sweep["parameters"].values()
    ]
    for combination in each_value(values):
        chosen = dict(zip(sweep["parameters"], combination))
        # what the agent makes of what the server has chosen
        arguments = create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen.items()}})
        check_top_level(composed(*fixed, *arguments["args_no_hyphens"]))
    assert sweep["metric"]["name"] in ("validation/psnr", "validation/lpips")
    assert (sweep["metric"]["goal"] == "maximize") == (sweep["metric"]["name"] == "validation/psnr")


def each_value(values: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """Combinations in which each value of each key comes up at least once."""
    for number in range(max(map(len, values))):
        yield [of_key[number % len(of_key)] for of_key in values]


def test_both_engines_ask_the_same_questions() -> None:
    def questions(files: list[Path]) -> dict[str, str]:
        comments = ([line for line in file.read_text().splitlines() if "@package" not in line] for file in files)
        return {file.stem: lines[0] for file, lines in zip(files, comments)}

    of_hydra = questions(HYDRA)
    del of_hydra["rate"]  # goes on after its runs, which no agent of W&B's does
    assert of_hydra == questions(WANDB)
