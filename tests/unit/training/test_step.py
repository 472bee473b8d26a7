"""A step does each thing once, waits for nothing, and is the same whatever its memory is arranged like."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import Compose
from tests.support.networks import autoencoder, ema_quantizer, frames
from vqgan.backbones.blocks import Level, Upsample
from vqgan.discriminators import PatchGAN
from vqgan.errors import StoppedError
from vqgan.quantizers.assignment import nearest
from vqgan.runtime.device import keep_layout, on_device
from vqgan.runtime.process import Process
from vqgan.runtime.processor import cores
from vqgan.runtime.signals import StopSignals
from vqgan.training.finite import step_if
from vqgan.training.outcomes import Outcome
from vqgan.training.player import Player
from vqgan.training.progress import Clock
from vqgan.training.run import run
from vqgan.training.step import Step
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

ADVERSARIAL = ("loss.discriminator_start=0", "trainer.discriminator_every=1")
# What makes the host wait for a GPU: reading a value, and results whose size depends on values.
WAITING = ("_local_scalar_dense", "nonzero", "bincount", "unique", "masked_select", "equal", "is_nonzero")


def trainer_of(composed: Compose, tmp_path: Path, *overrides: str) -> Trainer:
    (tmp_path / "run").mkdir(exist_ok=True)
    return make_trainer(composed(*ADVERSARIAL, *overrides), tmp_path / "run")


def clips_of(trainer: Trainer, seed: int = 0) -> Tensor:
    shape = (2, *trainer.journal.validation.clips.shape[1:])
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Waits(TorchDispatchMode):
    """Writes down every operation that would make the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "variant", [("model=vqmodel",), ("model=emavq",), ("model=emavq", "discriminator.norm=actnorm"),
                ("model=emavq", "trainer.clip_gradients=1", "trainer.precision=bf16", "optimizer=adamw"),
     ("model=emavq", "trainer.weight_average=0.1", "optimizer=muon"),
     ("model=emavq", "backbone=causal_tiny", "backbone.temporal_resolutions=[8,4]", "data.clip_frames=5",
      "discriminator=patchgan_3d_small", "+loss/terms=temporal", "trainer.picture_share=0.5")],
)  # fmt: skip
def test_nothing_in_a_step_waits_for_the_device(composed: Compose, tmp_path: Path, variant: tuple[str, ...]) -> None:
    trainer = trainer_of(composed, tmp_path, *variant)
    for step in range(2):  # what starts from data does so here
        trainer.step(step, [clips_of(trainer, step)])
    with Waits() as waits:
        trainer.step(2, [clips_of(trainer, 2)])
    assert waits.found == []


def test_such_waits_would_be_noticed() -> None:
    with Waits() as waits:
        assert torch.ones(1).sum() > 0
        torch.bincount(torch.zeros(1, dtype=torch.int64))
    assert waits.found == ["_local_scalar_dense", "bincount"]


@pytest.mark.parametrize(("every", "passes"), [(1, [2, 2, 2]), (2, [2, 1, 2])])
def test_each_network_runs_once_on_each_input(
    composed: Compose, tmp_path: Path, vgg16_weights: Path, every: int, passes: list[int]
) -> None:
    values = ("loss=vqgan", f"loss.perceptual.weights={vgg16_weights}", f"trainer.discriminator_every={every}")
    trainer = trainer_of(composed, tmp_path, *ADVERSARIAL, *values)
    calls: Counter[str] = Counter()
    assert trainer.discriminator is not None
    assert trainer.loss.perceptual is not None
    counted = {
        "autoencoder": trainer.autoencoder, "discriminator": trainer.discriminator,
        "perceptual": trainer.loss.perceptual.features[0],
    }  # fmt: skip
    for name, network in counted.items():
        network.register_forward_hook(lambda *_, name=name: calls.update([name]))
    for step, expected in enumerate(passes):
        calls.clear()
        trainer.step(step, [clips_of(trainer)])
        assert calls == {"autoencoder": 1, "discriminator": expected, "perceptual": 2}


def test_of_the_target_no_graph_is_kept(composed: Compose, tmp_path: Path, vgg16_weights: Path) -> None:
    trainer = trainer_of(composed, tmp_path, "loss=vqgan", f"loss.perceptual.weights={vgg16_weights}")
    assert trainer.loss.perceptual is not None
    graphs: list[bool] = []
    trainer.loss.perceptual.features[-1].register_forward_hook(lambda _, __, out: graphs.append(out.requires_grad))
    trainer.step(0, [clips_of(trainer)])
    assert sorted(graphs) == [False, True]


def gradients(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Of both players, in one step that moves nothing."""
    kept: dict[str, Tensor] = {}

    def keep(self: Player[Any], step: int, finite: Tensor) -> None:
        named = self.network.named_parameters()
        kept.update({f"{type(self.network).__name__}.{n}": p.grad.clone() for n, p in named})

    monkeypatch.setattr(Player, "update", keep)
    trainer.step(0, [clips_of(trainer)])
    return kept


ARRANGEMENTS = {
    "channels last": ("trainer.channels_last=true",),
    "activation checkpointing": ("trainer.activation_checkpointing=true",),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
@pytest.mark.parametrize("model", ["vqmodel", "emavq"])
def test_the_gradients_do_not_depend_on_how_memory_is_used(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, model: str
) -> None:
    plain = ("trainer.channels_last=false", f"model={model}", "backbone.dropout=0.1")
    expected = gradients(trainer_of(composed, tmp_path, *plain), monkeypatch)
    found = gradients(trainer_of(composed, tmp_path, *plain, *ARRANGEMENTS[name]), monkeypatch)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-7)


def test_the_codebook_learns_once_with_activation_checkpointing() -> None:
    plain, saving = (autoencoder(ema_quantizer()).train() for _ in range(2))
    saving.load_state_dict(plain.state_dict())
    saving.recompute_activations()
    for network in (plain, saving):
        network(frames()).reconstruction.sum().backward()
        network.quantizer.update()
    assert torch.equal(plain.quantizer.codebook, saving.quantizer.codebook)


def test_activation_checkpointing_keeps_less() -> None:
    def kept(network: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(frames(side=64)).reconstruction.sum()
        return sum(sizes.values())

    network = autoencoder(residual_blocks=2).train()
    whole = kept(network)
    network.recompute_activations()
    assert any(isinstance(module, Level) and module.recompute for module in network.modules())
    assert kept(network) < 0.5 * whole


@pytest.mark.parametrize("side", [1, 2, 5])
def test_raising_the_resolution_is_repeating_and_convolving(side: int) -> None:
    torch.manual_seed(0)
    upsample = Upsample(6).double()
    x = torch.randn(2, 6, side, side + 1, dtype=torch.float64, requires_grad=True)
    expected = upsample.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(upsample(x), expected, rtol=1e-12, atol=1e-12)
    inputs = (x, upsample.conv.weight, upsample.conv.bias)
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(upsample(x), inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.Adam(p, fused=True), lambda p: torch.optim.AdamW(p, fused=True),
     lambda p: torch.optim.Adam(p), lambda p: torch.optim.SGD(p, momentum=0.9)],
    ids=["fused Adam", "fused AdamW", "Adam", "SGD"],
)  # fmt: skip
def test_an_optimizer_does_not_step_where_a_step_does_not_count(make: Callable[..., torch.optim.Optimizer]) -> None:
    def run(finites: list[bool]) -> tuple[Tensor, list[Tensor]]:
        parameter = nn.Parameter(torch.linspace(-1, 1, 9))
        optimizer = make([parameter])
        for number, finite in enumerate(finites):
            parameter.grad = torch.full((9,), float(number)) if finite else torch.full((9,), float("nan"))
            step_if(torch.tensor(finite), optimizer)
        state = [v for s in optimizer.state_dict()["state"].values() for v in s.values() if isinstance(v, Tensor)]
        return parameter.detach(), state

    parameter, state = run([True, False, True, False])
    without = nn.Parameter(torch.linspace(-1, 1, 9))
    optimizer = make([without])
    for number in (0, 2):
        without.grad = torch.full((9,), float(number))
        optimizer.step()
    assert torch.equal(parameter, without.detach())
    kept = [v for s in optimizer.state_dict()["state"].values() for v in s.values() if isinstance(v, Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(state, kept, strict=True))


def test_loaded_optimizer_state_takes_the_layout_of_its_parameters() -> None:
    """A fused optimizer walks through memory, and would mix up numbers that are laid out in another order."""
    torch.manual_seed(0)
    weight, gradient, second = (torch.randn(4, 6, 3, 3) for _ in range(3))
    results = []
    for before, after in [(torch.contiguous_format,) * 2, (torch.contiguous_format, torch.channels_last)]:
        first = nn.Parameter(weight.clone(memory_format=before))
        optimizer = torch.optim.Adam([first], fused=True)
        first.grad = gradient.clone(memory_format=before)
        optimizer.step()
        again = nn.Parameter(first.detach().clone(memory_format=after))
        resumed = torch.optim.Adam([again], fused=True)
        keep_layout(resumed)
        resumed.load_state_dict(optimizer.state_dict())
        again.grad = second.clone(memory_format=after)
        resumed.step()
        results.append(again.detach().contiguous())
    assert torch.equal(*results)


@pytest.mark.parametrize("start", [True, False])
def test_a_start_from_data_that_is_taken_back_comes_again(start: bool) -> None:
    """Even with two forward passes in the step that is skipped, as with accumulation."""
    quantizer = ema_quantizer(start_from_data=True)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.begin_step()
    for seed in (1, 2):
        quantizer(torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(seed)))
    quantizer.update()
    if start:  # the step is skipped: what it changed is put back, as `Buffers` does it
        for name, buffer in quantizer.named_buffers():
            if name in before:
                buffer.copy_(before[name])
    quantizer.begin_step()
    codebook = quantizer.codebook.clone()
    quantizer(torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(quantizer.codebook, codebook) != start


def test_actnorm_starts_once(composed: Compose, tmp_path: Path) -> None:
    critic = PatchGAN(3, 8, 1, "actnorm")
    critic(frames()[:, None])
    norm = critic.main[3]
    scale = norm.scale.detach().clone()
    norm.begin_step()
    assert norm.surely_started
    critic(frames()[:, None] * 3)
    assert torch.equal(norm.scale, scale)
    critic.load_state_dict(PatchGAN(3, 8, 1, "actnorm").state_dict())
    assert not norm.has_started(), "loaded state is looked at anew"


@pytest.mark.parametrize(("latents", "codes", "dimension"), [(300, 262144, 8), (20000, 1024, 8), (300, 20000, 32)])
def test_no_large_matrix_is_ever_in_memory(latents: int, codes: int, dimension: int) -> None:
    class Largest(TorchDispatchMode):
        most = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, list | tuple) else [result]:
                if tensor._base is None:
                    self.most = max(self.most, tensor.numel() * tensor.element_size())
            return result

    torch.manual_seed(0)
    z, codebook = torch.randn(latents, dimension), torch.randn(codes, dimension)
    with Largest() as largest:
        indices = nearest(z, codebook)
    assert largest.most <= max(2**22, 4 * latents * dimension, 4 * codes * dimension), "bytes"
    some = slice(0, 300)
    assert torch.equal(indices[some], torch.cdist(z[some].double(), codebook.double()).argmin(1))


def test_waiting_for_data_counts_only_where_the_device_waits_too() -> None:
    clock = Clock(lambda: 0.0)
    assert clock.wait(lambda: time.sleep(0.05) or 7, lambda: True) == 7
    assert clock.read() == {}, "no frames, no speed"
    clock.count(1)
    assert clock.read()["speed/data_wait"] == 0
    clock.wait(lambda: time.sleep(0.05), lambda: False)
    assert 0.1 < clock.read()["speed/data_wait"] < 0.9


def test_what_reading_takes_is_a_share_of_the_cores() -> None:
    spent = 7.0
    clock = Clock(lambda: spent)
    clock.count(1)
    time.sleep(0.05)
    spent += 0.5 * cores() * (time.perf_counter() - clock.started)
    assert clock.read()["speed/reading"] == pytest.approx(0.5, rel=0.1)
    clock.restart()
    clock.count(1)
    assert clock.read()["speed/reading"] == 0


@pytest.mark.parametrize(("device", "goes_on"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_the_host_goes_on_while_a_batch_travels_only_to_cuda(device: str, goes_on: bool) -> None:
    asked = {}
    batch = SimpleNamespace(to=lambda device, non_blocking: asked.update({device.type: non_blocking}))
    on_device(batch, torch.device(device))  # type: ignore[arg-type]
    assert asked == {device: goes_on}


@pytest.mark.parametrize("finite", [True, False])
def test_where_fused_optimizers_do_not_look_the_host_does(finite: bool) -> None:
    """Apple's take `found_inf`, and do not use it."""

    class Flag:
        device = torch.device("mps")

        def __bool__(self) -> bool:
            return finite

    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([parameter], lr=1.0, fused=True)
    parameter.grad = torch.full((3,), 1.0 if finite else float("nan"))
    step_if(Flag(), optimizer)  # type: ignore[arg-type]
    torch.testing.assert_close(parameter.detach(), torch.zeros(3) if finite else torch.ones(3), rtol=0, atol=1e-6)


def test_a_discriminator_that_does_not_learn_yet_has_its_learning_rate(composed: Compose, tmp_path: Path) -> None:
    run(composed("loss.discriminator_start=99", "schedule.warmup_steps=10", "trainer.steps=3", "trainer.log_every=1"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lr = composed().optimizer.lr
    for name in ("autoencoder", "discriminator"):
        assert [row[f"learning_rate/{name}"] for row in rows[1:]] == pytest.approx([lr * s / 10 for s in (1, 2, 3)])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_the_compiler_ends_the_run_in_its_step(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Of several processes, too: the others may wait within the step, and a step that was not made does not count."""
    trainer = trainer_of(composed, tmp_path)
    trainer.resume()
    steps = []

    original = Step.__call__

    def step(self: Step, number: int, clips: Any) -> Outcome:
        steps.append(number)
        if number == 1:
            signal.raise_signal(signal.SIGINT)
            raise type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})("killed")
        return original(self, number, clips)

    monkeypatch.setattr(Step, "__call__", step)
    trainer.process = Process(0, processes, 0)
    one_call_later = None if processes == 1 else lambda _: False
    with pytest.raises(StoppedError, match="Stopped by SIGINT"), StopSignals(one_call_later) as stop:
        trainer.run(stop)
    assert steps == [0, 1]
    assert trainer.done == 1
