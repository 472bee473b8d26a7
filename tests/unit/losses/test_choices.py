"""Every choice within `conf/loss`, found by looking, takes part in steps of both players that wait for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Compose
from tests.unit.training.test_step import Waits
from vqgan.config.build import check_top_level, conf_dir
from vqgan.errors import ConfigError
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

CHOICES = sorted((file.parent.name, file.stem) for file in (conf_dir() / "loss").glob("*/*.yaml"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_takes_part_in_a_step(
    group: str, choice: str, composed: Compose, tmp_path: Path, vgg16_weights: Path
) -> None:
    config = composed(
        f"loss/{group}={choice}", f"loss.perceptual.weights={vgg16_weights}", "loss.discriminator_start=0",
        "trainer.discriminator_every=1",
    )  # fmt: skip
    check_top_level(config)
    (tmp_path / "run").mkdir()
    trainer = make_trainer(config, tmp_path / "run")
    batches = trainer.loader.batches(0)
    for step in range(2):  # what starts from data does so here
        trainer.step(step, [next(batches)])
    batch = next(batches)
    with Waits() as waits:
        outcome = trainer.step(2, [batch])
    assert waits.found == []
    assert bool(outcome.finite)
    if group == "terms":
        assert any(name.endswith(f"/{choice}") for name in outcome.metrics)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.terms.lecam.decay=2", "loss.terms.lecam.decay must be in [0, 1), but is 2"),
        ("loss.terms.lecam.decay=x", "loss.terms.lecam.decay must be a number, but is 'x'"),
        ("+loss.terms.lecam.dekay=2", "Unknown key 'loss.terms.lecam.dekay'. Did you mean 'loss.terms.lecam.decay'?"),
        ("loss.terms.lecam=2", "loss.terms must be a choice (loss/terms=gram, loss/terms=lecam, loss/terms=temporal)"),
        ("loss.terms.lecam._target_=vqgan.losses.Hinge", "Unknown key 'loss.terms.lecam.weight'."),
    ],
)
def test_a_mistake_in_a_term_is_named(override: str, message: str, composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run(composed("loss/terms=lecam", override))
    assert str(caught.value).startswith(message)


def test_terms_can_be_several(composed: Compose) -> None:
    assert set(composed("loss/terms=[gram,lecam]").loss.terms) == {"gram", "lecam"}
    assert set(composed().loss.terms) == set()
