"""Checkpoints and configs of other projects: shapes that claim more than there is, and configs of anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.faults.hostile.attempts import CHECKPOINT, CONFIG, Attempt
from tests.faults.hostile.config_texts import text_of
from tests.faults.hostile.honest import grown
from tests.faults.hostile.test_import_taming import TAMING_CONFIGS, taming_state

KINDS = ("taming", "ldm", "llamagen", "ibq", "open-magvit2", "diffusers-vq", "vidtok")
HUGE, MANY = 2**40, range(10**4)


def claiming(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """The honest state in which some tensors have no values, but a size that others are made by."""
    named = {name.replace("__", "."): torch.empty(shape) for name, shape in shapes.items()}
    return taming_state() | named


STATES = {
    "as many channels as there are numbers": claiming(encoder__conv_in__weight=(HUGE, 0, 3, 3)),
    "a width beyond all": claiming(**{f"encoder__down__{i}__block__0__conv2__weight": (HUGE, 0) for i in range(2)}),
    "as many latents as there are numbers": claiming(encoder__conv_out__weight=(HUGE, 0, 3, 3)),
    "fifty thousand latents": claiming(encoder__conv_out__weight=(50_000, 0, 3, 3)),
    "as many codes as there are numbers": claiming(quantize__embedding__weight=(HUGE, 0)),
    "a codebook that is a number": claiming(quantize__embedding__weight=()),
    "ten thousand levels": claiming(**{f"encoder__down__{i}__block__0__conv1__weight": (32, 0) for i in MANY}),
    "ten thousand blocks": claiming(**{f"encoder__down__0__block__{i}__conv1__weight": (32, 0) for i in MANY}),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_shapes_that_claim_more_than_there_is_are_refused(
    kind: str, name: str, attempted: Attempt, world: Path
) -> None:
    (world / "model.yaml").write_text("model: {params: {regularizer_config: {params: {levels: [8, 8, 8, 8]}}}}")
    torch.save({"state_dict": STATES[name]}, world / "model.ckpt")
    ended = attempted("command", "import", kind, world / "model.ckpt", "--out", world / "out")
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph


@pytest.mark.parametrize("name", TAMING_CONFIGS)
@pytest.mark.parametrize("kind", ["taming", "ibq"])
@pytest.mark.slow
def test_a_hostile_config_is_refused_or_without_harm(
    kind: str, name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    """Sizes are the tensors', so that much of a config is of no matter."""
    torch.save({"state_dict": taming_state()}, world / "model.ckpt")
    config = world / "model.yaml"
    config.write_text(grown(text_of(TAMING_CONFIGS, name, marker)), errors="surrogateescape")
    ended = attempted("command", "import", kind, world / "model.ckpt", "--out", world / "out", writes=True)
    assert ended.code in (0, CONFIG, CHECKPOINT), ended
    assert ended.code == 0 or ended.paragraph
    assert "The Zen of Python" not in ended.output
