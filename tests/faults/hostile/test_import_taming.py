"""Checkpoints and configs of another software."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from tests.faults.hostile.attempts import CHECKPOINT, CONFIG, Attempt
from tests.faults.hostile.config_texts import ALIASES, COPY, HIDDEN, SYSTEM, Texts, text_of, whole
from tests.faults.hostile.honest import BACKBONE, TAMING, a_taming_config, grown, with_value
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.quantizers import VectorQuantizer
from vqgan.tokenizer.taming import to_taming


def taming(path: str, value: object) -> Callable[[], str]:
    """The honest config of another software in which one value differs."""
    return lambda: yaml.safe_dump(with_value({"model": TAMING}, f"model.{path}", value), sort_keys=False)


@functools.cache
def taming_state() -> dict[str, Tensor]:
    backbone = Convolutional(**BACKBONE | {"channels": 32, "norm_groups": 32})
    return to_taming(Autoencoder(backbone, VectorQuantizer(8, 4, 1.0, 0.25)).state_dict(), None)


LINEAR = {"_target_": "torch.nn.Linear", "in_features": 2**15, "out_features": 2**15}
TAMING_CONFIGS: Texts = {
    "a python object": whole("model: !!python/object/apply:os.system ['touch MARKER']"),
    "no yaml": whole("model: ["),
    "a list": whole("- 1"),
    "text": whole("text"),
    "nothing": whole(""),
    "text for the model": whole("model: os.system"),
    "a list for the model": whole("model: [1]"),
    "a billion laughs": whole(ALIASES),
    "a page of brackets": whole("[" * 2**15),
    "brackets that a comment seems to close": whole(HIDDEN),
    "a hundred megabytes": whole("# HUGE"),
    "a number of 5000 digits": whole("model: " + "9" * 5000),
    "a time that is text": whole("model: !!timestamp foo"),
    "bytes that are no text": whole("model: \udcff"),
    "text for the parameters": taming("params", "os.system"),
    "text for the sizes": taming("params.ddconfig", "os.system"),
    "a list for the sizes": taming("params.ddconfig", [1]),
    "text for the loss": taming("params.lossconfig", "os.system"),
    "text for the values of the loss": taming("params.lossconfig.params", "os.system"),
    "a size that is a call": taming("params.ddconfig.ch", SYSTEM),
    "a size that is a copy": taming("params.ddconfig.ch", COPY),
    "sizes that are copies": taming("params.ddconfig.ch_mult", [COPY]),
    "a size that is a network": taming("params.ddconfig.ch", LINEAR),
    "a size that is a module": taming("params.ddconfig.ch", {"_target_": "this.c"}),
    "a token for a size": taming("params.ddconfig.ch", "${oc.env:HOSTILE_TOKEN}"),
    "an address for a size": taming("params.ddconfig.ch", "${oc.env:DATABASE_URL}"),
    "a class os.system": taming("target", "os.system"),
    "a number for a class": taming("target", 7),
    "a first stage os.system": taming("params.first_stage_config", "os.system"),
    "a first stage without values": taming("params.first_stage_config", {"target": "os.system"}),
    "a terabyte of codes": taming("params.n_embed", 2**40),
    "codes below zero": taming("params.n_embed", -1),
    "text for the codes": taming("params.n_embed", "8"),
    "nothing for the codes": taming("params.n_embed", None),
    "a fraction of the codes": taming("params.n_embed", 8.5),
    "as many blocks as there are numbers": taming("params.ddconfig.num_res_blocks", 10**9),
    "as many channels as there are numbers": taming("params.ddconfig.ch", 32 * 2**50),
    "a resolution that is text": taming("params.ddconfig.resolution", "x"),
    "a dimension that is text": taming("params.embed_dim", "x"),
}


@pytest.mark.slow
def test_the_honest_checkpoint_is_imported(attempted: Attempt, world: Path) -> None:
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    config = a_taming_config(world / "model.yaml")
    out = world / "out"
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", out, writes=True)
    assert (ended.code, ended.error) == (0, "")


@pytest.mark.parametrize("name", TAMING_CONFIGS)
@pytest.mark.slow
def test_a_hostile_config_of_another_software_is_refused(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    config = world / "model.yaml"
    config.write_text(grown(text_of(TAMING_CONFIGS, name, marker)), errors="surrogateescape")
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", world / "out")
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph
    assert "The Zen of Python" not in ended.output


def test_what_is_printed_to_be_typed_runs_nothing_else(attempted: Attempt, world: Path, marker: Path) -> None:
    """The command for further training has values from the config: a shell must take them for what they are."""
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    text = taming("params.lossconfig.params.disc_ndf", f"$(touch {marker})")()
    config, out = a_taming_config(world / "model.yaml", text), world / "out"
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", out, writes=True)
    assert ended.code in (0, CONFIG), ended
    for line in ended.output.splitlines():
        subprocess.run(["sh", "-c", line.replace("python", "echo")], cwd=world, capture_output=True, check=False)
    assert not marker.exists()
