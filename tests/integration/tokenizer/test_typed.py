"""What to type to train a tokenizer further: an export prints it, and so does `init_from` beside other networks."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.conftest import Compose
from vqgan.config.build import build, conf_dir
from vqgan.errors import ConfigError
from vqgan.tokenizer.folder import description_of, load_weights, part_in, write
from vqgan.tokenizer.tokenizer import Tokenizer
from vqgan.tokenizer.typed import overrides_for

EXPORT = importlib.import_module("vqgan.commands.export")


def composed_of(*typed: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*typed])


def described(config: DictConfig) -> dict[str, Any]:
    return description_of(part_in(config, "backbone"), part_in(config, "model.quantizer"))


@pytest.mark.parametrize(
    "typed",
    [
        ["backbone=small", "model=emavq"],
        ["backbone=small", "backbone.channels=24", "backbone.decoder_channels=40", "model=fsq"],
        ["backbone=causal_small", "backbone.resolution=32", "model=emavq", "model.quantizer.revive_after=null"],
        ["backbone=tiny", "backbone.channel_multipliers=[1,2]", "model=product", "model.quantizer.base.latent_dim=4"],
        ["backbone=f16", "model=residual", "model.quantizer.depth=2"],
        ["backbone=open_magvit2", "model=lfq"],
    ],
)
def test_what_is_typed_makes_the_same_networks(typed: list[str]) -> None:
    description = described(composed_of(*typed))
    found = overrides_for(description["backbone"], description["quantizer"])
    assert found is not None
    assert described(composed_of(*found)) == description
    assert len(found) <= len(typed), "no value that the choice has anyway"


def test_of_other_classes_than_there_are_choices_nothing_is_said() -> None:
    description = described(composed_of())
    assert overrides_for(description["backbone"], {"class": "mine.Quantizer"}) is None
    product = described(composed_of("model=product"))["quantizer"]
    product["base"] = {"class": "FSQ", "levels": [8, 8]}
    assert overrides_for(description["backbone"], product) is None


def test_an_export_says_how_to_go_on_and_so_does_who_goes_on_otherwise(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed("model.quantizer.codebook_size=48")
    description, parts = described(config), (config.backbone, config.model.quantizer)
    tokenizer = Tokenizer(build(parts[0], "backbone"), build(parts[1], "model.quantizer"), description)
    write(tmp_path / "a", description, tokenizer.state_dict(), None, "")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "a"), "--out", str(tmp_path / "b")])
    EXPORT.main()
    *_, said, line = capsys.readouterr().out.splitlines()
    assert said == "Train it further with:"
    words = shlex.split(line.partition("init_from=")[2])
    assert words[0] == str(tmp_path / "b")
    assert words[-2:] == ["data=videos", "data.root=DIR"]
    assert described(composed_of(*words[1:-2])) == description
    config.model.quantizer.codebook_size = 32
    with torch.device("meta"):
        other = Tokenizer(build(parts[0], "backbone"), build(parts[1], "model.quantizer"), {})
    made = shlex.join(words[1:-2])
    with pytest.raises(ConfigError, match="cluster_sizes: 48 there, 32 here") as refused:
        load_weights(tmp_path / "b", other, None)
    assert str(refused.value).endswith(f"Type what it is made of: {made}")

    # A stranger's description cannot make the message fail, nor fill a screen.
    hostile = json.loads((tmp_path / "b" / "config.json").read_text())
    for backbone in ({"class": ["x"]}, 7, hostile["backbone"] | {"channels": [1] * 10**4}):
        (tmp_path / "b" / "config.json").write_text(json.dumps(hostile | {"backbone": backbone}))
        with pytest.raises(ConfigError, match="is not the configuration's") as refused:
            load_weights(tmp_path / "b", other, None)
        assert "Type what" not in str(refused.value)
