"""Priors trained: what they find, and that they are runs as all others."""

from __future__ import annotations

import json
import lzma
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.priors import markov, prior_config, write_codes
from tests.support.processes import together
from tests.support.runs import digest, rows
from vqgan.errors import ConfigError, DataError, StoppedError
from vqgan.prior.data import Videos, by_time
from vqgan.prior.figures import EVALUATION
from vqgan.prior.run import run
from vqgan.prior.wiring import PriorTrainer, make_trainer, moments
from vqgan.runtime.process import this_process
from vqgan.tokens.folder import Tokens
from vqgan.tokens.side import write_side

SHAPE = (6, 2, 3)


def chains(folder: Path, back: int = 1, count: int = 10, shape: tuple[int, int, int] = SHAPE) -> Path:
    return write_codes(folder, {f"{n:03}.mp4": markov(shape, back, n)[0] for n in range(count)}, 4)


def weights(trainer: PriorTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.prior.parameters()])


@pytest.mark.slow
@pytest.mark.parametrize("back", [1, 2, 6])  # the code before, the one before that, the same place a time before
def test_a_chain_costs_its_entropy_rate(back: int, tmp_path: Path) -> None:
    tokens = chains(tmp_path / "tokens", back, 60, (12, 2, 3))
    rate = markov(SHAPE, back, 0)[1]
    assert rate < 1.35, "of 2 bits that they have without a model"
    run(prior_config(tokens, tmp_path / "run", "trainer.steps=300", "data.batch_size=16", "trainer.log_every=100"))
    told = json.loads((tmp_path / "run" / EVALUATION).read_text())["metrics"]
    alone = back / 72  # a share of the codes that nothing is before
    expected = rate * (1 - alone) + 2 * alone
    assert expected - 0.05 < told["bits_per_token"]["value"] < expected + 0.12
    assert told["order0_bits_per_token"]["value"] == pytest.approx(2.0, abs=0.01)
    assert told["bits_per_token_at_time_1"]["value"] > told["bits_per_token_at_times_5_to_8"]["value"]


def test_figures_are_what_their_definitions_say(tmp_path: Path) -> None:
    tokens = chains(tmp_path / "tokens")
    trainer = run(prior_config(tokens, tmp_path / "run", "trainer.steps=4"))
    content = json.loads((tmp_path / "run" / EVALUATION).read_text())
    told = {name: metric["value"] for name, metric in content["metrics"].items()}

    held_out = trainer.held_out
    assert not {held_out.path(n) for n in range(len(held_out))} & {
        trainer.loader.videos.path(n) for n in range(len(trainer.loader.videos))
    }
    bits, codes = 0.0, []
    trainer.prior.eval()
    for number in range(len(held_out)):
        whole = np.asarray(held_out[number].codes).astype(np.int64)
        codes.append(whole)
        for first, counted in ((0, 0), (2, 2)):  # times 0 to 3, then 4 and 5 after 2 and 3
            clip = torch.from_numpy(whole[first : first + 4])[None, ..., None]
            flat = clip.flatten(1)
            before = torch.nn.functional.pad(flat[:, :-1], (1, 0))
            with torch.no_grad():
                logits = trainer.prior.logits(before, 2, 3, torch.tensor([first == 0]), None, 0, None).double().numpy()
            shares = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
            of_codes = -np.log2(shares[np.arange(24), flat[0].numpy()])
            bits += of_codes[counted * 6 :].sum()
    tokens_all = 36 * len(held_out)
    assert told["bits_per_token"] == pytest.approx(bits / tokens_all, rel=1e-5)
    assert told["bits_per_frame"] == pytest.approx(bits / (6 * len(held_out)), rel=1e-5)
    assert told["bits_per_second"] == pytest.approx(25 * bits / (6 * len(held_out)), rel=1e-5)
    shares = np.bincount(np.concatenate(codes).ravel(), minlength=4) / tokens_all
    assert told["order0_bits_per_token"] == pytest.approx(-(shares * np.log2(shares)).sum())
    assert trainer.journal.validation.order0 == pytest.approx(told["order0_bits_per_token"])  # type: ignore[attr-defined]
    assert told["below_order0"] == pytest.approx(1 - told["bits_per_token"] / told["order0_bits_per_token"])
    assert told["fixed_bits_per_token"] == math.log2(4)
    packed = lzma.compress(np.concatenate(codes).astype(np.uint8).tobytes(), preset=9 | lzma.PRESET_EXTREME)
    assert told["xz_bits_per_token"] == pytest.approx(8 * len(packed) / tokens_all)
    assert told["bits_per_pixel"] is None
    interval = content["metrics"]["bits_per_token"]
    assert interval["low"] <= interval["value"] <= interval["high"]


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = chains(tmp_path / "tokens")
    values = ["trainer.steps=6", "prior.dropout=0.2", "trainer.evaluate_every=3", "trainer.weight_average=0.1"]
    whole = run(prior_config(tokens, tmp_path / "whole", *values))

    original = PriorTrainer._step

    def stopping(self: PriorTrainer, batches: list[object], stop: object) -> None:
        original(self, batches, stop)  # type: ignore[arg-type]
        if self.done == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PriorTrainer, "_step", stopping)
        with pytest.raises(StoppedError, match="resume="):
            run(prior_config(tokens, tmp_path / "parts", *values))
    assert not (tmp_path / "parts" / EVALUATION).exists()
    parts = run(prior_config(tokens, tmp_path / "parts", *values))
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert torch.equal(weights(parts), weights(whole))
    told = [json.loads((tmp_path / name / EVALUATION).read_text())["metrics"] for name in ("parts", "whole")]
    assert told[0] == told[1]


def step_of(tokens: Path, folder: Path) -> torch.Tensor:
    """The weights after two steps of this process's share."""
    trainer = make_trainer(prior_config(tokens, folder), folder, this_process())
    batches = trainer.loader.batches(0)
    for number in range(2):
        trainer.step(number, [next(batches)])
    return weights(trainer)


def test_half_precision_is_of_the_network_alone(tmp_path: Path) -> None:
    tokens = chains(tmp_path / "tokens")
    values = ["trainer.precision=bf16", "trainer.allow_slow_precision=true", "trainer.steps=3"]
    trainer = run(prior_config(tokens, tmp_path / "run", *values))
    assert {parameter.dtype for parameter in trainer.prior.parameters()} == {torch.float32}
    assert rows(tmp_path / "run")[0]["validation/bits_per_token"] == pytest.approx(2.0)


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    tokens = chains(tmp_path / "tokens")
    alone = step_of(tokens, tmp_path / "alone")
    first, second = together(2, step_of, tokens, tmp_path / "both")
    assert torch.equal(first, second)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-5)


def test_videos_of_several_sizes_are_trained_on_apart(tmp_path: Path) -> None:
    shapes = [(6, 2, 3), (2, 2, 3), (6, 3, 2), (5, 3, 2)] * 3
    tokens = write_codes(tmp_path / "tokens", {f"{n}.mp4": markov(shape, 1, n)[0] for n, shape in enumerate(shapes)}, 4)
    trainer = run(prior_config(tokens, tmp_path / "run", "trainer.steps=8"))
    batches = trainer.loader.batches(0)
    seen = {next(batches).codes.shape[1:] for _ in range(30)}
    assert seen <= {(4, 2, 3, 1), (2, 2, 3, 1), (4, 3, 2, 1)}
    assert len(seen) == 3


@pytest.mark.parametrize(("frames", "expected"), [(5, [[0, 0], [1, 2], [3, 4]]), (4, [[0, 0], [1, 2], [3, 3]])])
def test_frames_that_share_codes_have_their_numbers_beside_each_other(frames: int, expected: list[list[int]]) -> None:
    assert by_time(np.arange(frames), 3, 2).tolist() == expected


def test_side_data_tell_what_codes_do_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    videos = {f"{n}.mp4": np.repeat(rng.integers(4, size=(6, 1, 1)), 6, 1).reshape(6, 2, 3) for n in range(12)}
    tokens = write_codes(tmp_path / "tokens", videos, 4)
    with pytest.raises(DataError, match="has no side data"):
        run(prior_config(tokens, tmp_path / "run", "data.side=true"))
    for path, codes in videos.items():
        write_side(tokens, path, np.eye(4, dtype=np.float32)[codes[:, 0, 0]])
    some = Videos(Tokens(tokens), range(5), True)
    assert some.side(0).argmax(1).tolist() == videos["0.mp4"][:, 0, 0].tolist()
    all_rows = np.concatenate([some.side(n) for n in range(5)])
    for found, expected in zip(moments(some), (all_rows.mean(0), all_rows.std(0))):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    told = {}
    for side in ("true", "false"):
        folder = tmp_path / f"side-{side}"
        run(prior_config(tokens, folder, f"data.side={side}", "trainer.steps=60", "optimizer.lr=0.01"))
        told[side] = json.loads((folder / EVALUATION).read_text())["metrics"]["bits_per_token"]["value"]
    assert told["true"] < 0.7 * told["false"]


def test_what_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    tokens = chains(tmp_path / "tokens")
    other = write_codes(tmp_path / "other", {"a.mp4": markov(SHAPE, 1, 0)[0]}, 5)
    with pytest.raises(ConfigError, match="are of two tokenizers: their codebook_size differs"):
        run(prior_config(tokens, tmp_path / "run", f"data.val_root={other}"))
    with pytest.raises(ConfigError, match="objective must be -validation/bits_per_token"):
        run(prior_config(tokens, tmp_path / "run", "objective=validation/psnr"))
    assert not (tmp_path / "run").exists()
