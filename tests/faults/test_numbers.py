"""Losses and gradients that are not finite leave no trace but their count, and too many end the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import Compose
from tests.support.runs import flat, rows
from vqgan.errors import DivergedError
from vqgan.losses import VQGANLoss
from vqgan.runs.checkpoint import read
from vqgan.training.finite import SkippedSteps
from vqgan.training.run import run
from vqgan.training.step import Step

ADVERSARIAL = (
    "loss.discriminator_start=0", "trainer.discriminator_every=1", "trainer.log_every=1", "trainer.checkpoint_every=1",
)  # fmt: skip


def poison_loss(side: str) -> Callable[[pytest.MonkeyPatch, set[int], float], None]:
    """Make a player's loss not finite in some steps."""

    def act(patch: pytest.MonkeyPatch, steps: set[int], value: float) -> None:
        original = getattr(VQGANLoss, f"{side}_loss")

        def poisoned(self: VQGANLoss, *arguments: Any, **values: Any) -> Any:
            loss = original(self, *arguments, **values)
            step = values.get("step", arguments[-1])
            return replace(loss, total=loss.total * value) if step in steps else loss

        patch.setattr(VQGANLoss, f"{side}_loss", poisoned)

    return act


def poison_gradient(side: str) -> Callable[[pytest.MonkeyPatch, set[int], float], None]:
    """Put one number that is not finite into a player's gradients in some steps."""

    def act(patch: pytest.MonkeyPatch, steps: set[int], value: float) -> None:
        original = getattr(Step, f"{side}_gradients")

        def poisoned(self: Step, step: int, *arguments: Any) -> Any:
            result = original(self, step, *arguments)
            network: nn.Module = getattr(self, side).network
            if step in steps:
                gradient = next(p.grad for p in network.parameters() if p.grad is not None)
                gradient[(0,) * gradient.ndim] = value
            return result

        patch.setattr(Step, f"{side}_gradients", poisoned)

    return act


def poison_latents(patch: pytest.MonkeyPatch, steps: set[int], value: float) -> None:
    """Let the encoder's output overflow in some steps, so that codebook and statistics see it as well."""
    original = Step.autoencoder_gradients

    def poisoned(self: Step, step: int, *arguments: Any) -> Any:
        hook = self.autoencoder.network.quant_conv.register_forward_hook(
            lambda _, __, out: out * value if step in steps else out
        )
        try:
            return original(self, step, *arguments)
        finally:
            hook.remove()

    patch.setattr(Step, "autoencoder_gradients", poisoned)


WAYS = {
    "loss of the autoencoder": poison_loss("autoencoder"),
    "loss of the discriminator": poison_loss("discriminator"),
    "gradient of the autoencoder": poison_gradient("autoencoder"),
    "gradient of the discriminator": poison_gradient("discriminator"),
    "latents": poison_latents,
}


def checkpoint(folder: Path, step: int) -> dict[str, Any]:
    found, state = read(folder / "checkpoints" / f"step-{step:08d}")
    assert found == step
    return state


def all_finite(state: dict[str, Any]) -> bool:
    values = [value for _, value in flat(state) if isinstance(value, torch.Tensor | float)]
    return all(bool(torch.as_tensor(value).isfinite().all()) for value in values)


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("variant", [("model=vqmodel",), ("model=emavq", "discriminator.norm=actnorm")])
@pytest.mark.parametrize("step", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_changes_nothing(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, value: float,
    variant: tuple[str, ...], step: int,
) -> None:  # fmt: skip
    WAYS[way](monkeypatch, {step}, value)
    folder = tmp_path / "run"
    run(composed(*ADVERSARIAL, *variant, "trainer.steps=5", "trainer.keep=9"))
    saved = [checkpoint(folder, done) for done in range(1, 6)]
    assert all(all_finite(state) for state in saved)
    moving = ("autoencoder", "discriminator", "autoencoder_optimizer", "discriminator_optimizer")
    if step:
        before, after = ({k: saved[n][k] for k in moving} for n in (step - 1, step))
        assert [name for (name, a), (_, b) in zip(flat(before), flat(after), strict=True) if not same(a, b)] == []
    assert [state["outcomes"]["skipped"]["total"] for state in saved] == [int(done > step) for done in range(1, 6)]
    assert not same_tensors(saved[-1]["autoencoder"], saved[step]["autoencoder"]), "it goes on to learn"
    logged = rows(folder)
    assert [row.get("train/skipped_steps") for row in logged[1:]] == [int(done > step) for done in range(1, 6)]
    assert all(value == value for row in logged for value in row.values())
    (written,) = [json.loads(line) for line in (folder / "skipped_batches.jsonl").read_text().splitlines()]
    assert written["step"] == step
    assert all(Path(clip["path"]).is_file() for clip in written["clips"])
    assert len(written["clips"]) == 2


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def same_tensors(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(same(a[name], b[name]) for name in a)


@pytest.mark.parametrize("saved", [2, 9], ids=["with a checkpoint", "without one"])
def test_steps_that_come_again_after_a_kill_are_written_down_once(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    class KilledError(Exception): ...

    def killed(self: Step, step: int, *arguments: Any) -> Any:
        if step == 3:
            raise KilledError
        return original(self, step, *arguments)

    WAYS["loss of the autoencoder"](monkeypatch, {1, 2}, float("nan"))
    every = (f"trainer.checkpoint_every={saved}", "trainer.evaluate_every=9", "trainer.log_every=1")
    values = (*ADVERSARIAL, "trainer.steps=5", *every)
    original = Step.autoencoder_gradients
    with monkeypatch.context() as patch:
        patch.setattr(Step, "autoencoder_gradients", killed)
        with pytest.raises(KilledError):
            run(composed(*values))
    run(composed(*values))
    lines = (tmp_path / "run" / "skipped_batches.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


@pytest.mark.parametrize("way", ["loss of the autoencoder", "gradient of the discriminator"])
def test_more_than_three_in_a_row_end_the_run(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    WAYS[way](monkeypatch, {2, 3, 4, 5}, float("nan"))
    with pytest.raises(DivergedError, match="4 steps in a row are not finite, the last of step 5") as error:
        run(composed(*ADVERSARIAL, "trainer.steps=9"))
    assert error.value.exit_code == 4
    lines = (tmp_path / "run" / "skipped_batches.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3, 4, 5]
    assert str(tmp_path / "run" / "skipped_batches.jsonl") in str(error.value)
    assert "checkpoints is from before" in str(error.value)
    _, state = read(tmp_path / "run" / "checkpoints" / "latest")
    assert all_finite(state)


def test_a_run_that_diverges_before_its_first_checkpoint_names_none(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS["loss of the autoencoder"](monkeypatch, {0, 1, 2, 3}, float("nan"))
    with pytest.raises(DivergedError, match=r"4 steps in a row .* No checkpoint was saved; the clips"):
        run(composed("trainer.steps=9", "trainer.checkpoint_every=9", "trainer.evaluate_every=9"))


def test_three_in_a_row_do_not(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WAYS["loss of the autoencoder"](monkeypatch, {2, 3, 4, 6, 7, 8}, float("nan"))
    run(composed(*ADVERSARIAL, "trainer.steps=11"))
    assert rows(tmp_path / "run")[-1]["train/skipped_steps"] == 6


def test_one_hundredth_of_the_last_thousand_ends_the_run() -> None:
    steps = SkippedSteps(3, 0.01)
    assert [steps.add(step) for step in range(0, 1000, 100)] == [None] * 10
    assert steps.add(999) == "11 of the last 1000 steps"
    again = SkippedSteps(3, 0.01)
    assert [again.add(step) for step in range(0, 50_000, 100)] == [None] * 500
    assert again.total == 500


def test_the_count_goes_on_after_a_resume() -> None:
    steps = SkippedSteps(3, 0.01)
    assert [steps.add(step) for step in (4, 5, 6)] == [None] * 3
    again = SkippedSteps(3, 0.01)
    again.load_state_dict(steps.state_dict())
    assert again.add(7) == "4 steps in a row"


def test_weights_that_overflow_in_an_update_are_never_saved(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as error:
        run(composed(*ADVERSARIAL, "optimizer.lr=1e30", "trainer.steps=20", "trainer.evaluate_every=50"))
    assert error.value.exit_code == 4
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):
        assert all_finite(read(path)[1])
