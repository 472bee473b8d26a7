"""The choices of `conf/loss`: what both players minimise."""

from vqgan.losses.game import Game
from vqgan.losses.hinge import Hinge
from vqgan.losses.lpips import LPIPS
from vqgan.losses.objective import (
    DiscriminatorTerm,
    Judgement,
    LatentTerm,
    Loss,
    Objective,
    ReconstructionTerm,
    Term,
)
from vqgan.losses.pixel import L1, L2
from vqgan.losses.vanilla import Vanilla
from vqgan.losses.vqgan import VQGANLoss

__all__ = [
    "L1", "L2", "LPIPS", "DiscriminatorTerm", "Game", "Hinge", "Judgement", "LatentTerm", "Loss", "Objective",
    "ReconstructionTerm", "Term", "VQGANLoss", "Vanilla",
]  # fmt: skip
