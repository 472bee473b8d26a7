"""The cost model of a training step: what is counted is right, and predictions go where they must."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.append(str(BENCH))

from cost import Data, Machine, Step, data_of, exposed, machines_of, predict  # noqa: E402
from work import Counter, Line, Operations, Work, kept  # noqa: E402

from tests.support.parts import PLAIN  # noqa: E402

DATA = Data(bytes_per_frame=1e4, decode=500.0)
TINY = (
    *PLAIN,
    "logger=none", "trainer.device=cpu", "backbone.channels=8", "backbone.resolution=16", "discriminator.channels=4",
    "model.quantizer.codebook_size=16", "data.workers=0",
)  # fmt: skip


def machine(**changed: Any) -> Machine:
    facts = machines_of(OmegaConf.load(BENCH / "machines.yaml"))
    return dataclasses.replace(facts["h100"], **changed)


@pytest.fixture(scope="module")
def work() -> Work:
    """Of about the size of f16, without counting it."""
    line = Line(Operations(0, 1e9, 3e9, 1600), Operations(1.2e12, 2e9, 6e9, 0))
    return Work(
        alone=line, together=line, encoder=0.22, discriminator=0.01,
        buckets=((32_000_000,) * 5, (32_000_000,) * 4, (11_000_000,)), messages=(1024,) * 30, parameters=75_000_000,
        checkpoint_bytes=900_000_000, discriminator_every=1, log_every=50, checkpoint_every=5000,
        evaluate_every=5000, validation_frames=256,
    )  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counts") / "work.json"


@pytest.fixture(scope="module")
def counted(file: Path) -> Work:
    return kept(file, TINY)


def test_alone_there_is_no_network(work: Work) -> None:
    assert predict(work, machine(), DATA, "bf16", 1, 8).network == 0


def test_more_gpus_are_never_faster_than_in_proportion(work: Work) -> None:
    for name, one in machines_of(OmegaConf.load(BENCH / "machines.yaml")).items():
        steps = [predict(work, one, DATA, "bf16", 2**k, 8) for k in range(11)]
        seconds = [step.seconds for step in steps]
        assert seconds == sorted(seconds), name
        assert all(step.frames_per_second <= step.gpus * steps[0].frames_per_second * 1.000001 for step in steps)


def test_a_machine_twice_as_fast_in_everything_takes_half_the_time(work: Work) -> None:
    slow = machine()
    rates = ("memory_rate", "link_rate", "network_rate", "storage_rate")
    fast = dataclasses.replace(
        slow, **{name: 2 * getattr(slow, name) for name in rates}, launch=slow.launch / 2,
        matrix_rate={name: 2 * rate for name, rate in slow.matrix_rate.items()},
        latency={name: seconds / 2 for name, seconds in slow.latency.items()},
    )  # fmt: skip
    for gpus in (1, 8, 1024):
        for slower in (DATA, Data(DATA.bytes_per_frame, 1e-3)):
            faster = Data(slower.bytes_per_frame, 2 * slower.decode)
            before = predict(work, slow, slower, "bf16", gpus, 8)
            after = predict(work, fast, faster, "bf16", gpus, 8)
            assert after.seconds == pytest.approx(before.seconds / 2)
            assert after.bottleneck == before.bottleneck


def test_a_large_batch_costs_what_its_frames_cost(work: Work) -> None:
    step = predict(work, machine(), DATA, "bf16", 1024, 1e7)
    reached, frame = machine(), work.alone.per_frame
    rate = reached.memory_rate * reached.achieved["memory"]
    alone = frame.flops / (reached.matrix_rate["bf16"] * reached.achieved["matrix"]) + frame.other_bytes / rate
    assert step.seconds / 1e7 == pytest.approx(alone, rel=1e-3)


def test_messages_of_many_processes_cost_twice_their_bytes() -> None:
    one = machine(latency={"device": 0.0, "host": 0.0}, gpus_per_node=1, link_rate=1e9, network_rate=1e9,
                  achieved={"matrix": 1, "memory": 1, "network": 1})  # fmt: skip
    assert one.all_reduce(1e9, 2) == pytest.approx(1)
    assert one.all_reduce(1e9, 2**20) == pytest.approx(2, rel=1e-5)


def test_a_ring_grows_with_its_processes_and_a_tree_with_their_logarithm() -> None:
    assert machine(asynchronous=True).hops(1024) == pytest.approx(20)
    assert machine(asynchronous=False).hops(1024) == 2046


@pytest.mark.parametrize(
    ("changed", "data", "bottleneck"),
    [
        ({}, DATA, "matrix"),
        ({"matrix_rate": {"bf16": 1e18}}, DATA, "memory"),
        ({"network_rate": 1e8}, DATA, "network"),
        ({"latency": {"device": 1e-6, "host": 1e-3}}, DATA, "host"),
        ({}, Data(1e4, 1.0), "data"),
        ({"storage_rate": 1e5}, DATA, "storage"),
    ],
)
def test_what_is_slow_is_the_bottleneck(work: Work, changed: dict[str, Any], data: Data, bottleneck: str) -> None:
    step = predict(work, machine(**changed), data, "bf16", 64, 8)
    assert step.bottleneck == bottleneck
    assert step.seconds >= max(step.matrix + step.memory, step.host, step.data, step.storage)


def test_gradients_hide_behind_the_backward_pass_and_only_there(work: Work) -> None:
    fast, slow = machine(network_rate=400e9), machine(network_rate=1e9)
    alone = sum(slow.all_reduce(size, 64) for buckets in work.buckets for size in buckets)
    assert exposed(work, slow, 64, 0.0) == pytest.approx(alone)
    assert exposed(work, dataclasses.replace(slow, overlap=0.0), 64, 1e9) == pytest.approx(alone)
    last = fast.all_reduce(work.buckets[2][0], 64)  # the discriminator's are ready when all is done
    assert exposed(work, fast, 64, 1e9) == pytest.approx(last, rel=1e-3)
    assert last < exposed(work, slow, 64, 0.05) < alone


def test_more_storage_is_read_by_shorter_clips() -> None:
    facts = OmegaConf.load(BENCH / "machines.yaml")
    assert data_of(facts, 1).bytes_per_frame == pytest.approx(8 * data_of(facts, 8).bytes_per_frame)


def test_the_counts_of_a_step_are_those_of_pytorch() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 3))
    frames = torch.randn(2, 3, 16, 16)
    with FlopCounterMode(display=False) as reference:
        network(frames).sum().backward()
    with Counter() as counter:
        network(frames).sum().backward()
    assert counter.found.flops == reference.get_total_flops() > 0
    hidden = 4 * 2 * 8 * 14 * 14
    assert counter.found.other_bytes >= 5 * hidden  # SiLU reads and writes, and its gradient is made of two of them
    assert not math.isclose(counter.found.matrix_bytes, 0)


def test_what_is_counted_is_kept(file: Path, counted: Work) -> None:
    assert kept(file, ["this=is not looked at"]) == counted


def test_gradients_of_all_parameters_are_sent(counted: Work) -> None:
    assert sum(map(sum, counted.buckets)) == 4 * counted.parameters


def test_messages_are_those_of_the_parts(counted: Work) -> None:
    codes, dimension = 16, 16
    assert 8 * codes in counted.messages  # counts of codes
    assert counted.messages.count(4 * codes * dimension) == 2  # sums of latents, and latents for codes that are unused
    assert counted.messages[-1] == 4 * codes * dimension


def test_frames_cost_alike_and_processes_cost_more(counted: Work) -> None:
    assert counted.alone.fixed.flops == pytest.approx(0, abs=1e-6 * counted.alone.per_frame.flops)
    assert counted.together.per_frame.flops == pytest.approx(counted.alone.per_frame.flops)
    assert counted.together.at(1).other_bytes > counted.alone.at(1).other_bytes + 4 * counted.parameters
    assert 0 < counted.encoder < 0.5
    assert 0 < counted.discriminator < 0.5


def test_a_step_says_how_fast_it_is() -> None:
    step = Step(gpus=4, frames=8, matrix=1, memory=1, network=0.5, host=1, data=0, storage=0, asynchronous=False)
    assert step.seconds == 3.5
    assert dataclasses.replace(step, asynchronous=True).frames_per_second == pytest.approx(32 / 2.5)
