"""The choices of `conf/loss`: what both players minimise."""

from vqgan.losses.balance import Adaptive, Balance, Fixed
from vqgan.losses.game import Game
from vqgan.losses.gram import Gram
from vqgan.losses.hinge import Hinge
from vqgan.losses.lecam import LeCam
from vqgan.losses.lpips import LPIPS
from vqgan.losses.nonsaturating import NonSaturating
from vqgan.losses.objective import (
    DiscriminatorTerm,
    FeatureTerm,
    Judgement,
    LatentTerm,
    Loss,
    Objective,
    ReconstructionTerm,
    Term,
)
from vqgan.losses.perceptual import Perceptual
from vqgan.losses.pixel import L1, L2
from vqgan.losses.temporal import Temporal
from vqgan.losses.vanilla import Vanilla
from vqgan.losses.vqgan import VQGANLoss

__all__ = [
    "L1", "L2", "LPIPS", "Adaptive", "Balance", "DiscriminatorTerm", "FeatureTerm", "Fixed", "Game", "Gram", "Hinge",
    "Judgement", "LatentTerm", "LeCam", "Loss", "NonSaturating", "Objective", "Perceptual", "ReconstructionTerm",
    "Temporal", "Term", "VQGANLoss", "Vanilla",
]  # fmt: skip
