"""Frozen parts stay as they are, to the last bit; with encoder and quantizer frozen codes keep their meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import vqgan
from tests.conftest import Compose, small_config
from tests.support.parts import PLAIN
from tests.support.runs import rows
from vqgan.errors import ConfigError
from vqgan.quantizers import Quantizer
from vqgan.runtime.device import prepare
from vqgan.training.freezing import PARTS, freeze
from vqgan.training.run import run
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

pytestmark = pytest.mark.slow

ADVERSARIAL = ("loss.discriminator_start=0", "trainer.discriminator_every=1")
# All that could move a part without a gradient, or make its codes random.
HARSH = (
    "optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.5", "trainer.clip_gradients=1",
    "backbone.dropout=0.3", *ADVERSARIAL,
)  # fmt: skip
VARIANTS = {
    "gradients": ("model=vqmodel",),
    "EMA": ("model=emavq", "model.quantizer.revive_after=1", "model.quantizer.decay=0.5"),
    "averaged": ("model=emavq", "model.quantizer.revive_after=1", "trainer.weight_average=0.2"),
    "accumulated": ("model=vqmodel", "trainer.accumulate=2", "trainer.activation_checkpointing=true"),
}


def first_stage(folder: Path, *overrides: str) -> Path:
    run(small_config(folder, *overrides))
    return folder / "run"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_decoder_learns_and_tokens_stay_valid(variant: str, tmp_path: Path) -> None:
    before = first_stage(tmp_path / "first", *VARIANTS[variant])
    values = (*PLAIN, *VARIANTS[variant], *HARSH, "experiment=decoder_only", f"init_from={before}")
    trainer = run(small_config(tmp_path / "second", *values))
    old, new = vqgan.load(before), vqgan.load(tmp_path / "second" / "run")
    frames = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = old.encode(frames)
    assert len(codes.unique()) > 3, "else they could not differ"
    assert torch.equal(new.encode(frames), codes)
    assert torch.equal(trainer.autoencoder.eval().encode(frames), codes), "in training, too"
    differing = {name for name, value in new.state_dict().items() if not torch.equal(value, old.state_dict()[name])}
    assert {name.split(".")[0] for name in differing} == {"post_quant_conv", "decoder"}
    assert not torch.equal(new.decode(codes), old.decode(codes))
    assert all("codebook/usage" not in row for row in rows(tmp_path / "second" / "run")), "none is counted"


def stepped(composed: Compose, folder: Path, *overrides: str) -> tuple[Trainer, dict[str, Tensor]]:
    """A trainer after two steps, and the state before them."""
    first = first_stage(folder / "first", *(o for o in overrides if o.startswith("model")))
    trainer = make_trainer(composed(*overrides, f"init_from={first}"), folder / "here")
    before = {name: value.clone() for name, value in trainer.autoencoder.state_dict().items()}
    batches = trainer.loader.batches(0)
    for number in range(2):
        assert trainer.step(number, [next(batches)]).finite
    return trainer, before


@pytest.mark.parametrize(
    ("frozen", "values"),
    [(["encoder"], ADVERSARIAL), (["quantizer"], ADVERSARIAL), (["decoder"], ("loss.discriminator_weight=0",)),
     (["quantizer", "decoder"], ("loss.discriminator_weight=0",))],
)  # fmt: skip
@pytest.mark.parametrize("model", ["vqmodel", "emavq"])
def test_what_is_frozen_stays_and_all_else_learns(
    frozen: list[str], values: tuple[str, ...], model: str, composed: Compose, tmp_path: Path
) -> None:
    names = f"trainer.freeze=[{','.join(frozen)}]"
    trainer, before = stepped(composed, tmp_path, f"model={model}", names, "optimizer=adamw", *values)
    after = trainer.autoencoder.state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved == {part for name, parts in PARTS.items() if name not in frozen for part in parts}
    still = {parameter for parameter in trainer.autoencoder.parameters() if not parameter.requires_grad}
    assert not still & trainer.step.autoencoder.optimizer.state.keys(), "which takes no memory for averages"


def test_a_run_can_be_frozen_from_some_step_on(tmp_path: Path) -> None:
    first_stage(tmp_path, "model=emavq", *ADVERSARIAL)
    before = vqgan.load(tmp_path / "run").state_dict()
    with pytest.warns(UserWarning, match="no longer exactly"):
        run(small_config(tmp_path, "model=emavq", *ADVERSARIAL, "trainer.freeze=[encoder,quantizer]", "trainer.steps=5",
                         f"resume={tmp_path / 'run'}"))  # fmt: skip
    after = vqgan.load(tmp_path / "run").state_dict()
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert moved <= {"post_quant_conv", "decoder"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["trainer.freeze=[encodr]"], r"trainer\.freeze must be a list of some of encoder, quantizer, decoder, but is"),
        (["trainer.freeze=encoder"], r"trainer\.freeze must be a list"),
        (["trainer.freeze=[encoder]"], r"that would stay random; say whose it is: init_from=RUN"),
        (["experiment=decoder_only"], r"that would stay random; say whose it is: init_from=RUN"),
        (["trainer.freeze=[encoder,decoder]", "init_from=FIRST"], "nothing is left that learns by gradients"),
        (["trainer.freeze=[decoder]", "init_from=FIRST"], "without decoder, whose last layer weighs the adversary"),
    ],
)
def test_what_cannot_be_is_said_early(values: list[str], said: str, composed: Compose, tmp_path: Path) -> None:
    first = first_stage(tmp_path / "first") if "init_from=FIRST" in values else tmp_path
    with pytest.raises(ConfigError, match=said):
        run(composed(*(value.replace("FIRST", str(first)) for value in values)))
    assert not (tmp_path / "run").exists()


def test_a_frozen_quantizer_stays_frozen_after_validation(composed: Compose, tmp_path: Path) -> None:
    trainer = make_trainer(composed(), tmp_path)
    prepare(trainer.autoencoder, torch.device("cpu"), channels_last=False)
    freeze(trainer.autoencoder, ["quantizer"])
    trainer.journal.evaluate(trainer.step)
    assert isinstance(trainer.autoencoder.quantizer, Quantizer)
    assert not trainer.autoencoder.quantizer.training
    assert trainer.autoencoder.decoder.training
