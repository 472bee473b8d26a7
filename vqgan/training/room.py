"""How much memory a step takes at its peak, found by a step on tensors without content before there is a first one."""

from __future__ import annotations

import contextlib
import copy
import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vqgan.frames import to_frames
from vqgan.layers import StartsFromData
from vqgan.runtime.collectives import without_the_others
from vqgan.runtime.gradients import GradientAverage
from vqgan.training.step import Step


class Live(TorchDispatchMode):
    """Adds up the bytes of what operators make, from when it is made until it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Take note of tensors that were there before, which are not counted."""
        self.known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def expected_growth(step: Step, clip: Sequence[int], clips: int, number: int) -> int | None:
    """The bytes of tensors that a step adds at its peak to those that are there; None where their content decides it.

    Gradients, optimizers' state, activations and all that is made of them on the way, and of several processes the
    copies in which gradients travel; but not workspaces within operators, nor what gloo and NCCL keep. Nothing is
    computed or sent, and nothing of `step` changes.

    Args:
        step: with its networks in place.
        clip: (time, height, width, rgb).
        clips: of a micro-batch.
        number: of the step; an adversarial one takes more.
    """
    players = step.players
    networks: list[nn.Module] = [*(player.network for player in players), step.loss]
    real = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    fake, live = FakeTensorMode(), Live()
    memo: dict[int, Any] = {id(tensor): fake.from_tensor(tensor) for tensor in real}
    try:
        with fake, without_the_others(), _unsaid():
            shadows = [copy.deepcopy(network, memo) for network in networks]
            optimizers = [copy.deepcopy(player.optimizer, memo) for player in players]
            live.know(memo[id(tensor)] for tensor in real)
            for shadow in shadows:
                for module in shadow.modules():
                    if isinstance(module, StartsFromData):
                        module.surely_started = True
            averages = [GradientAverage(shadow.parameters(), 1) for shadow in shadows[:-1]]
            with live:
                _take(
                    _shadow(step, shadows), averages, optimizers, torch.empty(clips, *clip, dtype=torch.uint8), number
                )
    except Exception:  # of any part, whose content decides what it does
        return None
    return live.peak + sum(buffer.nbytes for buffer in step.buffers.buffers)  # which a step remembers


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """What cannot be computed without content is an answer here: torch is not to log it as an error."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _shadow(step: Step, networks: list[nn.Module]) -> Step:
    """The step with other networks."""
    shadow = copy.copy(step)
    players: list[Any] = [SimpleNamespace(network=network) for network in networks[:-1]]
    shadow.autoencoder, shadow.discriminator = players[0], (players[1] if len(players) > 1 else None)
    shadow.loss = networks[-1]  # type: ignore[assignment]
    return shadow


def _take(step: Step, averages: list[GradientAverage], optimizers: list[Any], batch: Tensor, number: int) -> None:
    frames = to_frames(batch.to(step.device))
    reconstruction, loss = step.autoencoder_gradients(number, frames, 1)
    if step.is_adversarial(number):
        step.discriminator_gradients(number, frames, 1, reconstruction, loss.logits)
    del reconstruction, loss, frames
    for average in averages:
        average.finish()
    for optimizer in optimizers:
        optimizer.step()


def kept(step: Step) -> int:
    """Bytes that a run has from its first step on beside what it began with: gradients and the optimizers' state."""
    parameters = [p for player in step.players for p in player.network.parameters() if p.requires_grad]
    states = [value for player in step.players for state in player.optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in (*parameters, *states) if isinstance(tensor, Tensor))


def what_helps(peak: int, began_with: int, step: Step, clip: Sequence[int], clips: int, accumulate: int) -> str:
    """The one number that saves most where memory has run out, and how much of the peak.

    Args:
        peak: bytes that were in use.
        began_with: bytes before the first step.
        step: whose networks and optimizers these are.
        clip: (time, height, width, rgb).
        clips: of a micro-batch, over all processes.
        accumulate: micro-batches of a step.
    """
    weights = kept(step)
    batch = max(0, peak - began_with - weights)
    if weights > batch:  # a layer has the square of its channels
        typed, saved = "half the backbone.channels", 0.75 * weights
    elif clips > 1:
        typed, saved = (
            f"data.batch_size={clips // 2} trainer.accumulate={2 * accumulate}",
            batch * (1 - clips // 2 / clips),
        )
    elif clip[0] > 1:
        typed, saved = f"half of data.clip_frames={clip[0]}", batch / 2
    else:
        typed, saved = f"data.resolution={min(clip[1:3]) // 2}", 0.75 * batch
    return f"What helps most: {typed}, which would save about {saved / 2**30:.2g} GiB of it."
