"""A training step: ours against the textbook's (bench/textbook.py), same weights, same frames, taking turns.

    python bench/step.py [--rounds 5] [--compile] [overrides of the configuration]
    python bench/step.py --rounds 3 experiment=f16 data.batch_size=1            # the default
    python bench/step.py --rounds 20 --compile data.batch_size=16               # on a GPU

Perceptual loss and adversary are on; VGG16 has random weights unless `loss.perceptual.weights=FILE` is given, which
costs the same. Time and ratio of a step, its memory, each stage with its share of the machine's matrix-product rate,
and what the trainer does around the networks.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from measure import alternating, machine, matrix_rate, ratio, synchronize, table
from textbook import Textbook
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vqgan.config.build import conf_dir
from vqgan.frames import per_frame, to_frames
from vqgan.losses.lpips import vgg16_features
from vqgan.runtime.device import keep_freed_memory
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

TEXTBOOK, FP32, BF16 = "textbook, fp32", "ours, fp32", "ours, bf16"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="ours with trainer.compile=true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    overrides = ["experiment=f16", "data.batch_size=1", *overrides]
    if args.compile:
        overrides.append("trainer.compile=true")
    with tempfile.TemporaryDirectory() as folder:
        if args.alone:
            print(*measure_alone(args.alone, args.rounds, Path(folder), overrides))
            return
        trainers = {name: trainer_for(name, Path(folder), overrides) for name in (FP32, BF16)}
        clips = random_clips(trainers[FP32])
        steps: dict[str, Callable[[], object]] = {TEXTBOOK: textbook_step(trainers[FP32], clips)}
        steps |= {name: partial(trainer.step, 0, [clips]) for name, trainer in trainers.items()}
        print(f"{machine()}\n`python bench/step.py {' '.join(sys.argv[1:])}`: {tuple(clips.shape)} at a time\n")
        seconds = alternating(steps, args.rounds, warm_up=2)
        by_itself = {name: alone(name) for name in steps}
        rows = [
            [name, statistics.median(times), clips.shape[0] * clips.shape[1] / statistics.median(times),
             f"{ratio(seconds, TEXTBOOK, name):.2f}", by_itself[name][0],
             f"{by_itself[TEXTBOOK][0] / by_itself[name][0]:.2f}", f"{by_itself[name][1]:.1f} GiB"]
            for name, times in seconds.items()
        ]  # fmt: skip
        header = ["step", "seconds", "frames/s", "times as fast"]
        print(table([*header, "seconds, alone", "times as fast, alone", "peak memory"], rows))
        print("\nTaking turns in one process, and each alone in a process of its own.\n")
        for name, trainer in trainers.items():
            print(f"{name}, by stage\n\n{stages(trainer, clips, args.rounds)}\n")
            print(f"outside networks and optimizers: {overhead(trainer, clips, args.rounds):.1%} of a step\n")


def trainer_for(name: str, folder: Path, overrides: list[str]) -> Trainer:
    """A trainer of the precision in its name, adversarial from its first step."""
    weights = folder / "vgg16.pth"
    if not weights.exists():
        torch.save({f"features.{key}": value for key, value in vgg16_features().state_dict().items()}, weights)
    ours = [
        f"data.root={folder / 'synthetic'}", f"run_dir={folder}", "data=synthetic", "data.videos=2",
        "data.video_frames=8", "data.clip_frames=1", "data.workers=0", "logger=none", "loss.discriminator_start=0",
        "trainer.discriminator_every=1", "trainer.allow_slow_precision=true", f"loss.perceptual.weights={weights}",
        f"trainer.precision={'bf16' if name == BF16 else 'fp32'}",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return make_trainer(compose("train", [*ours, *overrides]), folder)


def random_clips(trainer: Trainer) -> Tensor:
    """A batch like the loader's."""
    time_, height, width = trainer.journal.validation.clips.shape[1:4]
    shape = (trainer.loader.batch_size, time_, height, width, 3)
    clips = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return clips.pin_memory() if trainer.device.type == "cuda" else clips


def textbook_step(trainer: Trainer, clips: Tensor) -> Callable[[], None]:
    """The reference's step on a copy of the same weights and the same frames."""
    textbook = Textbook(trainer)
    frames = to_frames(clips.to(trainer.device)).contiguous()
    return partial(textbook.step, frames)


def alone(name: str) -> tuple[float, float]:
    """Seconds of a step, and peak memory in GiB, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
    seconds, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(seconds), int(peak) / 2**30


def measure_alone(name: str, rounds: int, folder: Path, overrides: list[str]) -> tuple[float, int]:
    """Seconds, and bytes: on a GPU what its allocator gave, else what the whole process had."""
    trainer = trainer_for(name, folder, overrides)
    clips = random_clips(trainer)
    run = textbook_step(trainer, clips) if name == TEXTBOOK else partial(trainer.step, 0, [clips])
    if name == TEXTBOOK:
        keep_freed_memory(False)  # as it is without our trainer
    (seconds,) = alternating({"": run}, rounds).values()
    if torch.cuda.is_available():
        return statistics.median(seconds), torch.cuda.max_memory_allocated()
    return statistics.median(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def stages(trainer: Trainer, clips: Tensor, rounds: int) -> str:
    """Forward and backward of each network alone."""
    device = trainer.device
    dtype = torch.bfloat16 if trainer.settings.precision == "bf16" else torch.float32
    rate = matrix_rate(device, dtype)
    parts = stage_functions(trainer, to_frames(clips.to(device)))
    flops = {}
    for name, part in parts.items():
        with FlopCounterMode(display=False) as counter:
            part()
        flops[name] = counter.get_total_flops()
    seconds = {name: statistics.median(times) for name, times in alternating(parts, rounds).items()}
    rows = [
        [name, time_, flops[name] / 1e9, f"{flops[name] / time_ / rate:.0%}" if flops[name] else ""]
        for name, time_ in seconds.items()
    ]
    rows.append(["together", sum(seconds.values()), sum(flops.values()) / 1e9,
                 f"{sum(flops.values()) / sum(seconds.values()) / rate:.0%}"])  # fmt: skip
    return table(["stage", "seconds", "GFLOP", f"of {rate / 1e9:.0f} GFLOP/s"], rows)


def stage_functions(trainer: Trainer, frames: Tensor) -> dict[str, Callable[[], None]]:
    """What a step does with each part, on its own."""
    autoencoder, critic = trainer.autoencoder, trainer.discriminator
    assert critic is not None
    with torch.no_grad(), trainer.step.autocast():
        latents = per_frame(autoencoder.quant_conv, autoencoder.encoder(frames)).float()
        codes = autoencoder.quantizer(latents).latents
        reconstruction = autoencoder.reconstruct(codes)

    def encoder() -> None:
        with trainer.step.autocast():
            out = per_frame(autoencoder.quant_conv, autoencoder.encoder(frames))
        out.sum().backward()

    def quantizer() -> None:
        out = autoencoder.quantizer(latents.requires_grad_())
        (out.latents.sum() + out.loss).backward()
        autoencoder.quantizer.update()

    def decoder() -> None:
        with trainer.step.autocast():
            out = autoencoder.reconstruct(codes.requires_grad_())
        out.sum().backward()

    def perceptual() -> None:
        if trainer.loss.perceptual is None:
            return
        with trainer.step.autocast():
            distance = trainer.loss.perceptual(reconstruction.requires_grad_(), frames).mean()
        distance.backward()

    def discriminator() -> None:
        with trainer.step.autocast():
            fake = critic(reconstruction.requires_grad_())
            (-fake.float().mean()).backward(inputs=[reconstruction], retain_graph=True)
            loss = trainer.loss.discriminator_loss(frames, reconstruction, critic, 0, logits=fake)
        loss.total.backward(inputs=list(critic.parameters()))

    def optimizers() -> None:
        for network, optimizer in ((player.network, player.optimizer) for player in trainer.step.players):
            for parameter in network.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            assert optimizer is not None
            optimizer.step()

    return {f.__name__: f for f in (encoder, quantizer, decoder, perceptual, discriminator, optimizers)}


def overhead(trainer: Trainer, clips: Tensor, rounds: int) -> float:
    """The share of a step that is spent outside the players' gradients and updates."""
    inside = 0.0

    @contextmanager
    def counted() -> Iterator[None]:
        nonlocal inside
        synchronize()
        before = time.perf_counter()
        yield
        synchronize()
        inside += time.perf_counter() - before

    def wrapped(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            with counted():
                return method(*arguments)

        return call

    names = ("autoencoder_gradients", "discriminator_gradients", "update_autoencoder", "update_discriminator")
    for name in names:
        setattr(trainer.step, name, wrapped(getattr(trainer.step, name)))
    (whole,) = alternating({"": partial(trainer.step, 0, [clips])}, rounds, warm_up=0).values()
    for name in names:
        delattr(trainer.step, name)
    return 1 - inside / sum(whole)


if __name__ == "__main__":
    main()
