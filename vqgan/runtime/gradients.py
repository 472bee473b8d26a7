"""Gradients of several processes become their mean, while the backward pass still goes on."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqgan.runtime.collectives import count_of_processes, reduce_in_background

BUCKET = 2**25  # bytes that travel at once


class GradientAverage:
    """Averages the gradients of a network's parameters over all processes, in buckets (arXiv:2006.15704).

    Not PyTorch's own wrapper, since here two players share one forward pass: gradients are taken at several places, a
    player is left out in some steps, and each micro-batch has two backward passes.

    Args:
        parameters: of one network.
        parts: micro-batches per step, each with one backward pass into these parameters; after the last one a
            parameter's gradient is sent on its way. In a step without any there is nothing to average.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], parts: int) -> None:
        self.parts = parts
        self.buckets: list[_Bucket] = []
        self.sent = 0
        if not dist.is_initialized():
            return
        # Backward passes reach the last parameters first.
        for parameter in reversed([p for p in parameters if p.requires_grad]):
            if not self.buckets or not self.buckets[-1].has_room_for(parameter):
                self.buckets.append(_Bucket())
            bucket = self.buckets[-1]
            bucket.parameters.append(parameter)
            parameter.register_post_accumulate_grad_hook(functools.partial(self._arrived, bucket))
        self._begin()

    def finish(self) -> None:
        """Wait until all gradients are the mean; on a GPU only its stream waits, not the host."""
        for bucket in self.buckets[self.sent :]:  # in which a parameter was not reached
            bucket.send()
        for bucket in self.buckets:
            bucket.receive()
        self._begin()

    def _begin(self) -> None:
        self.sent = 0  # buckets of this step
        for bucket in self.buckets:
            bucket.missing = self.parts * len(bucket.parameters)

    def _arrived(self, bucket: _Bucket, _: Tensor) -> None:
        bucket.missing -= 1
        # In the same order in all processes, whatever the order of arrival.
        while self.sent < len(self.buckets) and self.buckets[self.sent].missing == 0:
            self.buckets[self.sent].send()
            self.sent += 1


class _Bucket:
    """Parameters of one type whose gradients travel together."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []
        self.missing = 0  # gradients of this step

    def has_room_for(self, parameter: nn.Parameter) -> bool:
        size = sum(p.numel() * p.element_size() for p in [*self.parameters, parameter])
        return size <= BUCKET and parameter.dtype == self.parameters[0].dtype

    def send(self) -> None:
        self.reached = [p for p in self.parameters if p.grad is not None]
        if self.reached:
            self.flat = torch.cat([p.grad.reshape(-1) for p in self.reached if p.grad is not None])
            self.flat /= count_of_processes()
            self.wait = reduce_in_background(self.flat)

    def receive(self) -> None:
        if not self.reached:
            return
        self.wait()
        parts = self.flat.split([p.numel() for p in self.reached])
        for parameter, part in zip(self.reached, parts):
            assert parameter.grad is not None
            parameter.grad.copy_(part.view(parameter.grad.shape))
        del self.flat, self.wait  # which holds on to it
