"""Files of torch.save run no code, and claim no memory."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.faults.hostile.attempts import CHECKPOINT, CONFIG, ROOT, Attempt
from tests.faults.hostile.honest import (
    BACKBONE,
    MIB,
    QUANTIZER,
    a_run,
    a_taming_config,
    config_with,
    parts,
    signed,
    small,
)
from tests.faults.hostile.torch_files import CALLS, FILES, STRANGERS, Build, a_hostile_run, doubled, endless
from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Convolutional
from vqgan.quantizers import EMAQuantizer


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_more_than_plain_data_is_refused(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_hostile_run(world / "run", FILES[name], marker)
    for entry in (("load", run), ("latest", run / "checkpoints")):
        ended = attempted(*entry)
        assert ended.code == CHECKPOINT, (entry, ended)
        assert str(run) in ended.paragraph
        assert "weights_only" not in ended.paragraph  # torch's advice to read it without protection


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_the_same_file_is_refused_where_another_software_is_said_to_have_written_it(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    file = world / "deep" / "model.ckpt"
    FILES[name](file, marker)
    config = a_taming_config(world / "model.yaml")
    ended = attempted("command", "import-taming", file, "--config", config, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert str(file) in ended.paragraph


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
def test_it_is_refused_by_an_import_that_reads_namespaces_too(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    file = world / "deep" / "model.pt"
    FILES[name](file, marker)
    ended = attempted("command", "import", "llamagen", file, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert str(file) in ended.paragraph


def test_weights_of_the_perceptual_network_run_no_code(attempted: Attempt, world: Path, marker: Path) -> None:
    for name in CALLS:
        FILES[f"calls {name}"](world / "vgg16.pth", marker)
        ended = attempted("perceptual", world / "vgg16.pth")
        assert ended.code == CONFIG, ended
        assert "weights_only" not in ended.paragraph


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.slow
def test_plain_data_that_are_no_network_are_refused(name: str, attempted: Attempt, world: Path, marker: Path) -> None:
    run = a_hostile_run(world / "run", STRANGERS[name], marker)
    ended = attempted("load", run)
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph
    ended = attempted("latest", run / "checkpoints")
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph
    ended = attempted("command", "export", run, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.slow
def test_plain_data_that_are_no_network_are_not_imported(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    STRANGERS[name](world / "model.ckpt", marker)
    config = a_taming_config(world / "model.yaml")
    ended = attempted("command", "import-taming", world / "model.ckpt", "--config", config, "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph
    ended = attempted("command", "import", "llamagen", world / "model.ckpt", "--out", world / "out")
    assert ended.code == CHECKPOINT, ended
    assert ended.paragraph


HOSTILE = {"doubled": doubled(60), "endless": endless(), "number": 5, "methods": Build(OrderedDict, keys=5)}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", ["state", "param_groups", "exp_avg", "betas"])
@pytest.mark.slow
def test_an_optimizer_takes_no_hostile_state(name: str, key: str, attempted: Attempt, world: Path) -> None:
    state, value = {part: made.state_dict() for part, made in parts().items()}, HOSTILE[name]
    optimizer = state["optimizer"]
    if key == "exp_avg":
        optimizer["state"] = {0: {"step": 1.0, "exp_avg": value, "exp_avg_sq": value}}
    elif key == "betas":
        optimizer["param_groups"][0]["betas"] = value
    else:
        optimizer[key] = value
    folder = world / "checkpoints"
    (folder / "step-00000001").mkdir(parents=True)
    with (folder / "step-00000001" / "state.pt").open("wb") as file:
        torch.save(state, file)
    signed(folder / "step-00000001")
    ended = attempted("latest", folder)
    assert ended.code in (0, CONFIG, CHECKPOINT), ended


def expanded(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with strides of 0, which claim any shape by one number."""
    return {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in shapes.items()}


def shared(shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are all of one storage."""
    floats = torch.zeros(max(value.numel() for value in shapes.values() if value.is_floating_point()))
    return {
        name: floats[: value.numel()].view(value.shape)
        if value.is_floating_point()
        else torch.zeros_like(value, device="cpu")
        for name, value in shapes.items()
    }


@pytest.mark.parametrize(
    ("path", "size", "claim"),
    [
        ("model.quantizer.codebook_size", 2**24, expanded),
        ("backbone.channels", 1024, expanded),
        ("backbone.channels", 1024, shared),
    ],
)
def test_a_network_as_large_as_the_config_says_but_not_as_the_file_is_not_built(
    path: str, size: int, claim: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], attempted: Attempt, world: Path
) -> None:
    key = path.rpartition(".")[2]
    backbone, quantizer = ({**sizes, **({key: size} if key in sizes else {})} for sizes in (BACKBONE, QUANTIZER))
    with torch.device("meta"):
        shapes = Autoencoder(Convolutional(**backbone), EMAQuantizer(**quantizer)).state_dict()
    run = a_run(world / "run", config_with(path, size), claim(shapes))
    assert (run / "checkpoints" / "latest" / "state.pt").stat().st_size < 64 * MIB
    for entry in (("load", run), ("command", "export", run, "--out", world / "out")):
        ended = attempted(*entry)
        assert ended.code == CHECKPOINT, ended
        assert ended.paragraph


@pytest.mark.slow
def test_train_py_refuses_a_hostile_checkpoint_and_does_not_begin_anew(world: Path, marker: Path) -> None:
    run = a_hostile_run(world / "run", FILES["calls os.system"], marker)
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", f"resume={run}"], cwd=world, capture_output=True, text=True, check=False
    )
    assert done.returncode == CHECKPOINT, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not marker.exists()


@pytest.mark.parametrize("name", ["calls os.system", "a zip bomb", "a file of old"])
def test_no_training_starts_from_hostile_weights(name: str, attempted: Attempt, world: Path, marker: Path) -> None:
    run = a_hostile_run(world / "other", FILES[name], marker)
    ended = attempted("command", "train", f"init_from={run}", f"run_dir={world}/new", *small(), writes=True)
    assert ended.code == CHECKPOINT, ended
    assert str(run) in ended.paragraph
