"""Several processes train as one does on the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor

from tests.support.parts import PLAIN
from tests.support.processes import together
from vqgan.config.build import conf_dir
from vqgan.data import BadFiles
from vqgan.errors import ConfigError
from vqgan.runs.checkpoint import read
from vqgan.runtime.collectives import Agreement, broadcast, first_alone, gather, rows_over_processes, share_of
from vqgan.runtime.process import this_process
from vqgan.training.run import run
from vqgan.training.wiring import make_trainer

pytestmark = pytest.mark.slow

SMALL = (
    *PLAIN,
    "logger=none", "trainer.steps=4", "trainer.device=cpu", "data.workers=0", "data.validation_clips=5",
    "data.batch_size=4", "data.videos=4", "data.video_frames=8", "backbone.channels=8", "backbone.resolution=16",
    "model.quantizer.codebook_size=16", "discriminator.channels=4", "loss.discriminator_start=0",
    "trainer.log_every=1", "trainer.evaluate_every=2", "trainer.checkpoint_every=2",
)  # fmt: skip
VARIANTS = {
    "ema": ("model=emavq", "model.quantizer.revive_after=1", "discriminator.norm=batch", "trainer.clip_gradients=0.01"),
    "gradients": ("model=vqmodel", "discriminator.norm=actnorm", "trainer.accumulate=2"),
}


def composed(folder: Path, *overrides: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*SMALL, f"run_dir={folder}", *overrides])


def first_step(folder: Path, *overrides: str) -> dict[str, Any]:
    """Metrics, gradients and buffers of the first step."""
    folder.mkdir(exist_ok=True)
    trainer = make_trainer(composed(folder, *overrides), folder, this_process())
    gradients: dict[str, Tensor] = {}
    for name in ("autoencoder", "discriminator"):
        player = getattr(trainer.step, name)
        network, optimizer = player.network, player.optimizer

        def keep(network: Any = network, name: str = name) -> None:
            gradients.update({f"{name}.{key}": p.grad.clone() for key, p in network.named_parameters()})

        optimizer.register_step_pre_hook(lambda *_, keep=keep: keep())
    batches = trainer.loader.batches(0)
    metrics = trainer.step(0, [next(batches) for _ in range(trainer.settings.accumulate)]).metrics
    networks = (trainer.autoencoder, trainer.discriminator)
    buffers = {f"{n}.{key}": b.clone() for n, network in enumerate(networks) for key, b in network.named_buffers()}
    return {"metrics": metrics, "gradients": gradients, "buffers": buffers, "mask": F.dropout(torch.ones(64))}


def ran(folder: Path, *overrides: str) -> None:
    run(composed(folder, *overrides))


def both(folder: Path) -> dict[str, Any]:
    """All that the processes do in the tests below: starting them takes most of the time."""
    found = {name: first_step(folder / name, *overrides) for name, overrides in VARIANTS.items()}
    ran(folder / "run", *VARIANTS["ema"])
    return {**found, "told": told(folder)}


def told(folder: Path) -> dict[str, Any]:
    """What the collectives give."""
    rank = this_process().rank
    agreement = Agreement()
    rows = torch.arange(6.0).view(3, 2) + 10 * rank
    bad_files = BadFiles(folder / "bad_files.jsonl", 1.0, 0, writes=rank == 0)
    loader = make_trainer(composed(folder / "run"), folder / "run", this_process()).loader
    loader.bad_files = bad_files
    bad_files.add(f"of {rank}", "odd")
    loader.sequence.lost["x"] = [rank, "crashed"]
    loader.exchange()
    with first_alone():
        (folder / f"at {rank}").touch()
        seen = (folder / "at 0").exists()
    divided = ""
    try:
        make_trainer(composed(folder / "run", "data.batch_size=3"), folder / "run", this_process())
    except ConfigError as error:
        divided = str(error)
    return {
        "gather": gather({"rank": rank}),
        "first": broadcast(f"of {rank}"),
        "agreed": [agreement(flag) for flag in (rank == 1, False, True, False)],
        "share": share_of("abcde"),
        "rows": rows_over_processes(rows, torch.tensor([5, 0, 3])),
        "bad": sorted(bad_files.reasons),
        "lost": loader.state_dict(),
        "after the first": seen,
        "divided": divided,
    }


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("two")
    return folder, together(2, both, folder)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor within a share of its norm; but for keys' biases, whose gradients are zero and rounding."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("attn_1.k.bias"):
            continue
        error = float((found[name].double() - value.double()).norm())
        assert error <= tolerance * float(value.double().norm()) + 1e-9, f"{name}: {error}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_is_that_of_one_process(variant: str, of_two: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    alone = first_step(tmp_path, *VARIANTS[variant])
    assert "adversarial/weight" in alone["metrics"]
    for process in of_two[1]:
        for what, tolerance in {"metrics": 1e-4, "gradients": 2e-5, "buffers": 1e-5}.items():
            assert_close(process[variant][what], alone[what], tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_processes_have_the_same_bits(variant: str, of_two: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (process[variant] for process in of_two[1])
    for what in ("metrics", "gradients", "buffers"):
        assert all(torch.equal(first[what][name], second[what][name]) for name in first[what])


def test_masks_of_dropout_are_each_process_s_own(of_two: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (process["ema"]["mask"] for process in of_two[1])
    assert not torch.equal(first, second)


def test_a_run_has_one_folder_and_the_numbers_of_one_process(
    of_two: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    ran(tmp_path / "run", *VARIANTS["ema"])
    folders = (of_two[0] / "run", tmp_path / "run")
    names = [{path.relative_to(folder).as_posix() for path in folder.rglob("*")} for folder in folders]
    assert names[0] == names[1]
    assert [len((folder / "metrics.jsonl").read_text().splitlines()) for folder in folders] == [5, 5]
    states = [read((folder / "checkpoints" / "latest").resolve())[1] for folder in folders]
    # Adam turns a difference in the last digit of a small gradient into one of a whole step.
    assert_close(states[0]["autoencoder"], states[1]["autoencoder"], 1e-2)
    numbers = np.array([list(s["outcomes"]["latest"].values()) for s in states])
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=2e-2, atol=1e-3)


def test_what_processes_tell_each_other(of_two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, (first, second) = of_two[0], [process["told"] for process in of_two[1]]
    for told_to in (first, second):
        assert told_to["gather"] == [{"rank": 0}, {"rank": 1}]
        assert told_to["first"] == "of 0"
        assert told_to["agreed"] == [False, True, False, True]
        assert told_to["rows"].tolist() == [[14, 15], [0, 1], [10, 11]]
        assert told_to["bad"] == ["of 0", "of 1"]
        assert told_to["lost"] == {"lost": [{"x": [0, "crashed"]}, {"x": [1, "crashed"]}]}
        assert told_to["after the first"]
        assert told_to["divided"] == "data.batch_size must be a multiple of 2, the number of processes, but is 3."
    assert (first["share"], second["share"]) == ([(0, "a"), (2, "c"), (4, "e")], [(1, "b"), (3, "d")])
    assert (folder / "bad_files.jsonl").read_text().count("odd") == 2


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("overrides", [(), ("trainer.precision=bf16",), ("trainer.activation_checkpointing=true",)])
def test_four_processes_too(variant: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    alone = first_step(tmp_path / "one", *VARIANTS[variant], *overrides)
    tolerance = 5e-2 if overrides == ("trainer.precision=bf16",) else 2e-5
    for process in together(4, first_step, tmp_path / "four", *VARIANTS[variant], *overrides):
        assert_close(process["gradients"], alone["gradients"], tolerance)


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_compiled_networks_too(tmp_path: Path) -> None:
    alone = first_step(tmp_path / "one", *VARIANTS["ema"])
    compiled = (*VARIANTS["ema"], "trainer.compile=true")
    for process in together(2, first_step, tmp_path / "two", *compiled, seconds=900):
        assert_close(process["gradients"], alone["gradients"], 2e-4)
