"""Which recipe is best at equal cost: each trained with several seeds on one folder, measured on another.

    python bench/quality.py TRAIN HELDOUT --out DIR --seconds 480 --seeds 1 2 3 [--only NAME ...] [overrides for all]
    python bench/quality.py TRAIN HELDOUT --out DIR --seconds 480 --seeds 1 2 3 --vgg16 FILE loss=vqgan

The recipes are those of bench/quality.yaml, or of `--recipes FILE`: a name, and its overrides. What a step of each
takes is measured first, in turns, in the processor's time; from that and `--seconds` its number of steps follows. Runs
are ordinary ones in DIR/NAME/SEED (`vqgan compare DIR`), `--jobs` at a time. The same command goes on where it was
stopped, and does nothing again that is done. Videos are cut into shards first, so that reading costs next to nothing.

Printed, and kept in DIR/quality.json: processor's seconds and operations of the training, and the figures of the
held-out frames with 95 % intervals over videos and seeds. The last column is the gain in PSNR over the first recipe,
on the same videos. With `--vgg16` the perceptual distance is measured with that trunk: LPIPS only with torchvision's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hydra import compose, initialize_config_dir
from jaxtyping import Float
from measure import machine, table
from work import Counter

from vqgan.config.build import build, conf_dir
from vqgan.config.command import command_config
from vqgan.data import BadFiles, Corpus
from vqgan.evaluation.evaluator import Clip, Evaluator
from vqgan.evaluation.networks import FeatureNetworks
from vqgan.evaluation.subject import data_section, open_subject, read_clips
from vqgan.losses import LPIPS
from vqgan.training.trainer import Trainer
from vqgan.training.wiring import make_trainer

HERE = Path(__file__).resolve().parent
REPLICATES = 2000  # of the bootstrap
ONCE = 3  # steps that come before those that are timed: the first ones do more, put the codebook onto the data, say
NEVER = 2**40  # a step that no run reaches
Values = Float[np.ndarray, "seeds videos"]
FIGURES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "distance", "flicker": "flicker"}


@dataclass(frozen=True)
class Cost:
    """Of a step: processor's seconds, and floating-point operations of convolutions and matrix products."""

    seconds: float
    flops: float


@dataclass(frozen=True)
class Plan:
    """What a recipe takes: a step before the adversary begins, one after, and where that is."""

    before: Cost
    after: Cost
    start: int

    def steps(self, seconds: float) -> int:
        """That take so long together."""
        early = seconds / self.before.seconds
        late = self.start + (seconds - self.start * self.before.seconds) / self.after.seconds
        return max(1, round(early if early <= self.start else late))

    def flops(self, steps: int) -> float:
        """Of so many steps."""
        early, late = min(steps, self.start), max(0, steps - self.start)
        return early * self.before.flops + (late * self.after.flops if late else 0)


def main() -> None:
    """Plan, train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="videos to train on")
    parser.add_argument("heldout", type=Path, help="videos to measure on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="of the processor, that each training takes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", type=Path, default=HERE / "quality.yaml")
    parser.add_argument("--only", nargs="+", help="of the recipes' names")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, of equally many threads")
    parser.add_argument("--clips", type=int, default=400, help="held-out clips to measure on, at most")
    parser.add_argument("--clip-frames", type=int, default=1, help="of each of these, whatever a recipe learns from")
    parser.add_argument("--fps", type=float, help="frames a second, in training and in measuring; all unless given")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing")
    parser.add_argument("--vgg16", help="a trunk for the perceptual distance, in training too")
    args, overrides = parser.parse_known_args()
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    torch.set_num_threads(threads)
    recipes: dict[str, list[str]] = yaml.safe_load(args.recipes.read_text())
    recipes = {name: recipes[name] for name in args.only or recipes}
    if args.vgg16:
        overrides.append(f"loss.perceptual.weights={Path(args.vgg16).resolve()}")
    study = Study(args.out, overrides, recipes, args.seconds, args.fps)
    study.plan(args.rounds, args.jobs)
    study.shard(args.train)
    with ThreadPoolExecutor(args.jobs) as pool:  # seed by seed, so that what is stopped early still compares recipes
        list(pool.map(lambda run: study.train(*run, threads), [(n, s) for s in args.seeds for n in recipes]))
    study.measure(args.heldout, args.seeds, args.clips, args.clip_frames, args.vgg16)
    print(f"\n{machine()}\n`python {' '.join(sys.argv)}`\n\n{study.table(args.seeds)}")


class Study:
    """A folder of runs, and what is known of them in quality.json.

    Args:
        folder: of all.
        common: overrides of every recipe.
        recipes: overrides, by name.
        seconds: of the processor, for each.
        fps: at which videos are sampled; None for all frames.
    """

    def __init__(
        self,
        folder: Path,
        common: Sequence[str],
        recipes: Mapping[str, list[str]],
        seconds: float,
        fps: float | None,
    ) -> None:
        self.folder, self.recipes, self.seconds = folder, recipes, seconds
        self.sampling = [] if fps is None else [f"data.fps={fps}"]
        self.file, self.writing = folder / "quality.json", threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self.known: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.overrides = {name: [*common, *own] for name, own in recipes.items()}
        for name, own in self.overrides.items():
            known = self.known.setdefault(name, {"overrides": own, "seconds": seconds, "runs": {}})
            if (known["overrides"], known["seconds"]) != (own, seconds):
                raise SystemExit(f"{name} was begun in {folder} with {known['seconds']} s and {known['overrides']}")

    def plan(self, rounds: int, jobs: int) -> None:
        """Time a step of each recipe that has no number of steps yet, all in turns, while the other cores work too."""
        new = {name: self.overrides[name] for name in self.recipes if "steps" not in self.known[name]}
        if not new:
            return
        with tempfile.TemporaryDirectory() as folder, _others_at_work(jobs - 1):
            for name, plan in _plans({n: _trainer(own, Path(folder, n)) for n, own in new.items()}, rounds).items():
                steps = plan.steps(self.seconds)
                side = int(_compose(self.overrides[name]).backbone.resolution)
                self.known[name] |= {"steps": steps, "operations": plan.flops(steps), "resolution": side}
                print(f"{name}: {plan.before.seconds:.3f} s a step, {steps} steps", flush=True)
        self._write()

    def shard(self, videos: Path) -> None:
        """Cut the videos into shards of the sides that the recipes have, once."""
        for side in {self.known[name]["resolution"] for name in self.recipes}:
            command = ["vqgan", "shard", str(videos), "--out", str(self._shards(side)), f"resolution={side}"]
            subprocess.run([*command, "crf=8", "keyframe_every=1"], check=True)

    def train(self, name: str, seed: int, threads: int) -> None:
        """A run, from where it is to its end."""
        known = self.known[name]
        runs, steps = known["runs"], known["steps"]
        if runs.get(str(seed), {}).get("done"):
            return
        run = self.folder / name / str(seed)
        command = [
            sys.executable, str(HERE.parent / "train.py"), f"run_dir={run.resolve()}", f"seed={seed}", "logger=none",
            "data=shards", f"data.root={self._shards(known['resolution']).resolve()}", "data.val_fraction=0.02",
            "data.validation_clips=8", "data.clip_frames=1", "data.workers=1", f"trainer.steps={steps}",
            f"trainer.evaluate_every={steps}", f"trainer.checkpoint_every={max(1, steps // 4)}",
            f"trainer.log_every={min(50, steps)}", *self.sampling, *self.overrides[name],
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        before = time.perf_counter()
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True)
            _, status, used = os.wait4(process.pid, 0)  # Ctrl-C reaches the run too, which stops with a checkpoint
            code = os.waitstatus_to_exitcode(status)
            spent = runs.get(str(seed), {}).get("spent", 0) + used.ru_utime + used.ru_stime
            runs[str(seed)] = {"done": code == 0, "spent": spent}
            self._write()
            if code:
                said.seek(0)
                raise SystemExit(f"{name}, seed {seed} ended with {code}:\n{said.read()[-3000:]}")
        took = time.perf_counter() - before
        print(f"{name}, seed {seed}: {steps} steps, {took:.0f} s, {spent:.0f} of the processor", flush=True)

    def measure(self, heldout: Path, seeds: Sequence[int], clips: int, frames: int, vgg16: str | None) -> None:
        """Measure each run that has not been measured, at its end, all together and video by video."""
        read: dict[int, list[tuple[Path, Clip]]] = {}
        for name in self.recipes:
            for seed in seeds:
                run = self.known[name]["runs"][str(seed)]
                if "videos" in run:
                    continue
                subject = open_subject(str(self.folder / name / str(seed)))
                typed = ["data.workers=1", f"data.clip_frames={frames}", *self.sampling, f"clips={clips}"]
                typed += ["replicates=0", "download=false"]
                config = command_config("evaluate", typed, {"data": data_section(subject, str(heldout))})
                folder: Corpus = build(config.pop("data"), "data")
                config.pop("codecs")  # of subjects of others
                evaluator: Evaluator = build(config, "")
                lpips = LPIPS(vgg16).to(evaluator.hardware) if vgg16 else None
                missing = dict.fromkeys(("lpips", "rfid", "rfvd"), "not asked for")
                evaluator.networks = FeatureNetworks(lpips, None, None, missing, {})
                side = folder.resolution
                if side not in read:
                    read[side] = list(_clips(folder, clips, self.folder))
                whole = evaluator.measure(subject.network, read[side]).metrics
                run["whole"] = {key: whole[key].value for key in ("usage", "perplexity", "bits_per_pixel_fixed")}
                run["videos"] = [
                    {key: found[key].value for key in FIGURES if found[key].value is not None}
                    for _, group in itertools.groupby(read[side], lambda pair: pair[0])
                    if (found := evaluator.measure(subject.network, group).metrics)
                ]
                self._write()

    def table(self, seeds: Sequence[int]) -> str:
        """A row for each recipe."""
        values = {name: [self.known[name]["runs"][str(seed)] for seed in seeds] for name in self.recipes}
        keys = [key for key in FIGURES if key in next(iter(values.values()))[0]["videos"][0]]
        psnr = {name: _array(runs, "psnr") for name, runs in values.items()}
        rows = []
        first = next(iter(psnr.values()))
        for name, runs in values.items():
            means = [_with_interval(_array(runs, key)) for key in keys]
            codes = [np.mean([run["whole"][key] for run in runs]) for key in ("usage", "bits_per_pixel_fixed")]
            gain = "" if psnr[name] is first else _gain(psnr[name], first)
            known = self.known[name]
            spent = np.mean([run["spent"] for run in runs])
            cost = (f"{spent:.0f}", f"{known['operations'] / 1e12:.1f}", known["steps"])
            rows.append((name, *cost, *means, f"{codes[0]:.0%}", f"{codes[1]:.3f}", gain))
        header = ["recipe", "processor's seconds", "TFLOP", "steps", *(FIGURES[key] for key in keys)]
        return table([*header, "codes used", "bits a pixel", "gain, dB"], rows)

    def _shards(self, side: int) -> Path:
        return self.folder / f"shards_{side}"

    def _write(self) -> None:
        with self.writing:  # runs that go on side by side end side by side
            beside = self.file.with_suffix(".new")
            beside.write_text(json.dumps(self.known, indent=1))
            beside.replace(self.file)


def _compose(overrides: Sequence[str]) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", list(overrides))


def _trainer(overrides: Sequence[str], folder: Path) -> Trainer:
    """A trainer of the recipe on synthetic videos, for timing."""
    ours = [
        "data=synthetic", f"data.root={folder / 'synthetic'}", "data.videos=2", "data.video_frames=40",
        "data.clip_frames=1", "data.workers=0", "logger=none", f"run_dir={folder}",
    ]  # fmt: skip
    return make_trainer(_compose([*ours, *overrides]), folder)


def _plans(trainers: Mapping[str, Trainer], rounds: int) -> dict[str, Plan]:
    """Costs of steps before and after the adversary's start, the median over rounds; all recipes take turns."""
    found: dict[str, tuple[list[Cost], list[Cost]]] = {name: ([], []) for name in trainers}
    for round_ in range(-1, rounds):
        for name, trainer in trainers.items():
            for after, costs in enumerate(found[name]):
                first = _start(trainer) + ONCE if after else 0
                every = trainer.step.settings.discriminator_every
                if first >= NEVER:
                    costs.append(Cost(math.inf, math.inf))
                elif round_ < 0:
                    _cost(trainer, first, ONCE, count=False)
                    costs.append(_cost(trainer, first, every, count=True))
                else:
                    costs.append(_cost(trainer, first, every, count=False))
    return {
        name: Plan(_typical(before), _typical(after), _start(trainers[name])) for name, (before, after) in found.items()
    }


def _start(trainer: Trainer) -> int:
    """The step at which the discriminator begins to learn."""
    objective = trainer.step.loss
    return objective.discriminator_start if objective.discriminator_weight > 0 else NEVER


def _cost(trainer: Trainer, first: int, steps: int, count: bool) -> Cost:
    """Of a step, the mean of some; counting takes time, so what is counted is not timed."""
    time_, height, width = trainer.journal.validation.clips.shape[1:4]
    shape = (trainer.loader.batch_size, time_, height, width, 3)
    clips = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(first))
    before = time.process_time()
    with Counter() if count else contextlib.nullcontext() as counter:
        for step in range(first, first + steps):
            trainer.step(step, [clips])
    seconds = (time.process_time() - before) / steps
    return Cost(seconds, math.nan) if counter is None else Cost(math.nan, counter.found.flops / steps)


def _typical(costs: Sequence[Cost]) -> Cost:
    """The median of the times, and the count."""
    return Cost(float(np.nanmedian([c.seconds for c in costs])), float(np.nanmax([c.flops for c in costs])))


@contextlib.contextmanager
def _others_at_work(count: int) -> Iterator[None]:
    """Processes that compute as neighbouring runs will: a core that shares its caches and units is slower."""
    busy = "import torch; torch.set_num_threads(1); a = torch.randn(512, 512)\nwhile True: a @ a"
    processes = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _clips(folder: Corpus, most: int, beside: Path) -> Iterator[tuple[Path, Clip]]:
    """Clips of all of a folder, evenly spread, video after video."""
    bad_files = BadFiles(beside / "bad_files.jsonl", folder.max_bad_fraction, folder.max_bad_files)
    with contextlib.closing(read_clips(folder.whole(bad_files), most, folder, bad_files)) as stream:
        yield from stream


def _array(runs: Sequence[Mapping[str, Any]], key: str) -> Values:
    return np.array([[video[key] for video in run["videos"]] for run in runs])


def _means(values: Values, seed: int) -> np.ndarray:
    """Means over drawn seeds and drawn videos; the videos that are drawn depend on `seed` and their number alone."""
    runs, videos = values.shape
    drawn = np.random.default_rng(seed).integers(videos, size=(REPLICATES, 1, videos))
    seeds = np.random.default_rng([seed, runs]).integers(runs, size=(REPLICATES, runs, 1))
    return values[seeds, drawn].mean((1, 2))


def _with_interval(values: Values) -> str:
    low, high = np.quantile(_means(values, 0), (0.025, 0.975))
    digits = 2 if values.mean() > 2 else 3
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _gain(values: Values, others: Values) -> str:
    """Over another recipe, on the same videos."""
    low, high = np.quantile(_means(values, 0) - _means(others, 0), (0.025, 0.975))
    return f"{values.mean() - others.mean():+.2f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    main()
