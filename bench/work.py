"""What a training step does, counted on real steps: operations, bytes through memory, messages between processes."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from step import BF16, FP32, trainer_for
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore  # a backend whose messages go nowhere
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vqgan.config.build import conf_dir
from vqgan.frames import to_frames
from vqgan.runs.checkpoint import size_of
from vqgan.runtime.gradients import GradientAverage
from vqgan.training.trainer import Trainer


@dataclass(frozen=True)
class Operations:
    """Counts of a step, or of a part of one."""

    flops: float  # of convolutions and matrix products
    matrix_bytes: float  # that those read and write
    other_bytes: float  # that all other operators read and write, each by itself: nothing is fused
    operators: float

    def __add__(self, other: Operations) -> Operations:
        return Operations(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other))))

    def __mul__(self, factor: float) -> Operations:
        return Operations(*(factor * a for a in dataclasses.astuple(self)))


@dataclass(frozen=True)
class Line:
    """Operations of a step by the number of its frames."""

    fixed: Operations
    per_frame: Operations

    def at(self, frames: float) -> Operations:
        """A step on so many frames."""
        return self.fixed + self.per_frame * frames


@dataclass(frozen=True)
class Work:
    """A training step of a process, adversary on."""

    alone: Line
    together: Line  # one of several: gradients are copied, and norms of batches are computed in parts
    encoder: float  # the encoder's backward pass, as a share of the step's operations
    discriminator: float  # the discriminator's own part, as a share
    # Bytes of gradients, sent when the backward pass of the decoder, the encoder, the discriminator is through.
    buckets: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    messages: tuple[int, ...]  # bytes of each all-reduce that the step waits for
    parameters: int  # of both players
    checkpoint_bytes: int
    discriminator_every: int
    log_every: int
    checkpoint_every: int
    evaluate_every: int
    validation_frames: int


class Counter(TorchDispatchMode):
    """Counts every operator that is run within it; FLOPs by PyTorch's own formulas."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Operations(0, 0, 0, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
            self.found += Operations(flops, bytes_of((args, kwargs, out)), 0, 1)
        elif not func.is_view and func.namespace != "c10d":  # messages are counted by themselves
            self.found += Operations(0, 0, bytes_of((args, kwargs, out)), 1)
        return out


def bytes_of(values: Any) -> int:
    """Of all tensors in it; one that is expanded counts with what it really holds."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)


def count(overrides: Sequence[str]) -> Work:
    """Count steps of the composed config with one and with two frames; more frames go on along that line."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", list(overrides))
    name, every = BF16 if config.trainer.precision == "bf16" else FP32, int(config.trainer.discriminator_every)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(name, Path(folder), [*overrides, f"trainer.precision={config.trainer.precision}"])
    step = trainer.step
    step.settings = dataclasses.replace(step.settings, discriminator_every=2)  # even steps have it, odd ones not
    _step(trainer, 0, 1)  # the first one may do more: put the codebook onto the data, say
    alone, discriminator = _line(trainer, every)
    encoded = _counted(lambda: trainer.autoencoder.encoder(to_frames(_clips(trainer, 1))))
    with _together(trainer):
        together, _ = _line(trainer, every)
        messages, buckets = _messages(trainer)
    networks = [trainer.autoencoder, trainer.discriminator]
    state = {part: value.state_dict() for part, value in trainer.state().items()}
    return Work(
        alone=alone,
        together=together,
        encoder=2 * encoded.flops / alone.at(1).flops,  # a backward pass is twice a forward pass
        discriminator=discriminator,
        buckets=buckets,
        messages=messages,
        parameters=sum(p.numel() for network in networks if network is not None for p in network.parameters()),
        checkpoint_bytes=size_of(state),
        discriminator_every=every,
        log_every=int(config.trainer.log_every),
        checkpoint_every=int(config.trainer.checkpoint_every),
        evaluate_every=int(config.trainer.evaluate_every),
        validation_frames=int(config.data.validation_clips * config.data.get("clip_frames", 1)),
    )


def kept(file: Path | None, overrides: Sequence[str]) -> Work:
    """What the file holds; else it is counted and kept there."""
    if file is None or not file.exists():
        work = count(overrides)
        if file is not None:
            file.write_text(json.dumps(dataclasses.asdict(work)))
        return work
    values = json.loads(file.read_text())
    lines = {
        name: Line(Operations(**values[name]["fixed"]), Operations(**values[name]["per_frame"]))
        for name in ("alone", "together")
    }
    sizes = {"buckets": tuple(map(tuple, values["buckets"])), "messages": tuple(values["messages"])}
    return Work(**{**values, **lines, **sizes})


def _line(trainer: Trainer, discriminator_every: int) -> tuple[Line, float]:
    """Steps on average, the discriminator taking part in some; and its share of the operations."""
    share = 1 / discriminator_every
    with_it, without = (
        [_counted(lambda step=step, frames=frames: _step(trainer, step, frames)) for frames in (1, 2)]
        for step in (0, 1)
    )  # fmt: skip
    one, two = (a * share + b * (1 - share) for a, b in zip(with_it, without))
    per_frame = two + one * -1
    return Line(one + per_frame * -1, per_frame), share * (with_it[0].flops - without[0].flops) / one.flops


def _step(trainer: Trainer, step: int, frames: int) -> None:
    trainer.step(step, [_clips(trainer, frames)])


def _clips(trainer: Trainer, frames: int) -> Tensor:
    height, width = trainer.journal.validation.clips.shape[2:4]
    shape = (frames, 1, height, width, 3)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _counted(run: Callable[[], object]) -> Operations:
    with Counter() as counter:
        run()
    return counter.found


@contextmanager
def _together(trainer: Trainer) -> Iterator[None]:
    """A trainer that takes itself for one of two processes; its messages go nowhere."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    before = [player.gradient_average for player in trainer.step.players]
    for player in trainer.step.players:
        player.gradient_average = GradientAverage(player.network.parameters(), 1)
    try:
        yield
    finally:
        for player, average in zip(trainer.step.players, before):
            player.gradient_average = average
        dist.destroy_process_group()


def _messages(trainer: Trainer) -> tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Bytes of each all-reduce of a step with the discriminator in it: those waited for, and the buckets."""
    of_encoder = {id(parameter) for parameter in trainer.autoencoder.encoder.parameters()}
    lasts = [bucket.parameters[-1] for bucket in trainer.step.autoencoder.gradient_average.buckets]
    decoder, autoencoder = sum(id(last) not in of_encoder for last in lasts), len(lasts)
    with _noted() as sent:
        _step(trainer, 0, 1)
    sizes = [size for size, in_background in sent if in_background]
    buckets = tuple(sizes[:decoder]), tuple(sizes[decoder:autoencoder]), tuple(sizes[autoencoder:])
    return tuple(size for size, in_background in sent if not in_background), buckets


@contextmanager
def _noted() -> Iterator[list[tuple[int, bool]]]:
    """Notes the bytes of all-reduces, and whether they go on in the background."""
    sent: list[tuple[int, bool]] = []
    original = dist.all_reduce

    def all_reduce(tensor: Tensor, *args: Any, async_op: bool = False, **kwargs: Any) -> Any:
        sent.append((tensor.numel() * tensor.element_size(), async_op))
        return original(tensor, *args, async_op=async_op, **kwargs)

    dist.all_reduce = all_reduce
    try:
        yield sent
    finally:
        dist.all_reduce = original
