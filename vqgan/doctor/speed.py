"""How long a step takes here: that of the recipe, on noise, without reading."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from vqgan.autoencoder import Autoencoder
from vqgan.config.build import build
from vqgan.reports.text import duration
from vqgan.text import counted
from vqgan.training.settings import Settings
from vqgan.training.wiring import make_discriminator, make_loss, make_step

STEPS = 3  # that are timed, after a first one


@dataclass(frozen=True)
class Speed:
    """What was timed."""

    seconds: float  # of a step, the fastest: what others do on the machine makes it no faster
    clips: int
    frames: int  # of a clip
    steps: int  # of the whole run
    tokens: int  # of a frame

    def said(self) -> str:
        """In a sentence."""
        return (
            f"A step of the default ({counted(self.clips, 'clip')} of {counted(self.frames, 'frame')}) takes "
            f"{self.seconds:.2g} s, its {self.steps} steps about "
            f"{duration(self.seconds * self.steps / 3600)}, and validation beside."
        )


def speed(config: DictConfig) -> Speed:
    """Time a few steps of what a config trains, none of which is kept."""
    settings: Settings = build(config.trainer, "trainer")
    loss = make_loss(config)
    autoencoder = Autoencoder(build(config.backbone, "backbone"), build(config.model.quantizer, "model.quantizer"))
    optimizer = build(config.optimizer, "optimizer", params=autoencoder.parameters())
    schedule = build(config.schedule, "schedule")
    step = make_step(
        settings, loss, (autoencoder, optimizer), make_discriminator(config, loss), schedule, config.seed
    )  # fmt: skip
    data = config.data
    shape = (data.batch_size, data.clip_frames, data.resolution, data.resolution, 3)
    clips = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(settings.accumulate)]
    seconds = []
    for number in range(1 + STEPS):
        before = time.perf_counter()
        step(number, clips)
        if step.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - before)
    _, height, width = autoencoder.downsampling
    tokens = (data.resolution // height) * (data.resolution // width)
    return Speed(min(seconds[1:]), settings.accumulate * data.batch_size, data.clip_frames, settings.steps, tokens)
