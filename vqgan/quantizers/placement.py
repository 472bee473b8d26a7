"""Codes put onto latents: all of them when training starts, and later those that nothing chooses."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.layers import StartsFromData
from vqgan.runtime.collectives import broadcast_tensor, count_of_processes, mean_over_processes, rows_over_processes

PLACED_AT_ONCE = 2**14  # codes, so that placing all of a large codebook takes little memory


@torch.no_grad()
def place(marked: Bool[Tensor, "codes"], latents: Float[Tensor, "n latent"], *tables: Tensor) -> None:
    """Put the marked rows of tables (codes, latent) onto latents drawn at random from all processes', alike in all.

    The latents are cut into as many strata as there are rows to place, and each row takes one from its own: of two
    codes on one latent only the first is ever chosen.
    """
    there_are = len(latents) * count_of_processes()
    draws = broadcast_tensor(torch.randint(there_are, (len(marked),), device=latents.device))
    rows, number = marked.sum().clamp(min=1), (marked.cumsum(0) - 1).clamp(min=0)
    first, end = number * there_are // rows, (number + 1) * there_are // rows
    draws = first + draws * (end - first).clamp(min=1) // there_are
    parts = (tensor.split(PLACED_AT_ONCE) for tensor in (marked[:, None], draws, *tables))
    for some, drawn, *of_tables in zip(*parts):
        found = rows_over_processes(latents, drawn)
        # The step may be one that is not finite: what it does to a Parameter is not undone.
        sound = some & found.isfinite().all(1, keepdim=True)
        for table in of_tables:
            table.copy_(torch.where(sound, found, table))


@torch.no_grad()
def can_start_from(latents: Float[Tensor, "n latent"]) -> Bool[Tensor, ""]:
    """Whether codes that are put onto these latents, those of one process, have started by that, alike in all.

    Not where most are 0: that is what a codebook leaves that was itself put onto each of them just now, and all codes
    for it would lie on one point.
    """
    return mean_over_processes((latents != 0).any(1).float().mean()) > 0.5


def due(idle: Int[Tensor, "codes"], revive_after: int, latents: Float[Tensor, "n latent"]) -> Bool[Tensor, "codes"]:
    """Which codes to revive in a step with these latents, those of one process: after `revive_after` idle steps each.

    Where there are more codes than latents they take turns, over as many steps as it takes to give each a latent.
    """
    turns = min(revive_after, math.ceil(len(idle) / (len(latents) * count_of_processes())))
    turn = torch.arange(len(idle), device=idle.device) % turns
    # `idle` goes on counting: a code that was placed anew is not thereby in use.
    return (idle >= revive_after) & ((idle - turn) % revive_after == 0)


class Placement(StartsFromData):
    """Keeps a table that learns by gradients in use; a part that a quantizer has.

    It works at the beginning of a step, before latents are assigned, at most once: all micro-batches see one table. Not
    at the end, where it is not known yet whether the step counts. What it does in a step that turns out not to count
    stays (parameters are not put back), but the same codes are then due again in the next one, and are placed anew.

    Args:
        start_from_data: begin with codes drawn from the first batch's latents.
        revive_after: see `due`; null for never.
    """

    started: Bool[Tensor, ""]

    def __init__(self, start_from_data: bool, revive_after: int | None) -> None:
        check(revive_after is None or revive_after > 0, "revive_after", revive_after, "positive or null")
        super().__init__()
        self.revive_after = revive_after
        self.register_buffer("started", torch.tensor(not start_from_data))
        self.done = False  # in this step

    @torch.no_grad()
    def forward(
        self,
        codebook: Float[Tensor, "codes latent"],
        latents: Float[Tensor, "n latent"],
        idle: Int[Tensor, "codes"],
    ) -> None:
        """Move codes of `codebook` in place, if it is time; `idle` is for how many steps each was not chosen."""
        if not self.training or self.done:
            return
        self.done = True
        if not self.has_started():
            place(torch.ones_like(idle, dtype=torch.bool), latents, codebook)
            self.started.copy_(can_start_from(latents))
        elif self.revive_after is not None:
            place(due(idle, self.revive_after, latents), latents, codebook)

    def begin_step(self) -> None:
        """Take note that a training step begins."""
        super().begin_step()
        self.done = False

    def update(self) -> None:
        """Take note that an optimizer step is over."""
        self.done = False

    def _start_flag(self) -> Tensor:
        return self.started
