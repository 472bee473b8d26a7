"""Make runs fail in the ways of failures.md, and its pictures and quotations anew.

    python docs/failures.py TRAIN HELDOUT WORK [CASE ...]

TRAIN and HELDOUT are folders of videos, those of one on other subjects than those of the other; WORK is kept, and what
is trained there already is not trained again. Half an hour on two cores; writes docs/failures/*.png.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from vqgan.files.reading import read_object, read_rows
from vqgan.reports.healthy import KEPT
from vqgan.runs.metrics import read_metrics

PAGE = Path(__file__).with_suffix(".md")
SIDE, SHOWN, GAP = 96, 4, 12  # pixels of a frame in a picture, frames, pixels between them and the chart
WIDE = 300  # pixels of a chart
INK, FAINT, LINE = (27, 31, 36), (165, 170, 176), (213, 94, 0)
ALL = "data=shards data.workers=1 logger=none "
# What is typed, and the metric that shows it.
CASES = {
    "healthy": ("experiment=small_f8", "validation/psnr"),
    "grey": (
        "experiment=small_f8 optimizer=adam optimizer.lr=1e-5 schedule=constant data.batch_size=8 trainer.steps=80",
        "train/pixel",
    ),
    "collapse": (
        "experiment=small_f8 model=vqmodel optimizer=adam_fast optimizer.lr=2e-3 schedule=constant data.batch_size=8 "
        "trainer.steps=260 trainer.usage_steps=50",
        "codebook/usage",
    ),
    "adversary": (
        "experiment=small_f8 loss.discriminator_weight=5 loss.discriminator_start=150 trainer.discriminator_every=1 "
        "data.batch_size=8 trainer.steps=250",
        "train/pixel",
    ),
    "checkerboard": (
        "experiment=small_f8 loss.discriminator_weight=1 loss.discriminator_start=0 trainer.discriminator_every=1 "
        "schedule=constant data.batch_size=8 trainer.steps=100",
        "train/pixel",
    ),
    "diverged": (
        "experiment=small_f8 optimizer=adam_fast optimizer.lr=0.5 schedule=constant data.batch_size=8 "
        "trainer.log_every=1 trainer.steps=100",
        "train/skipped_steps",
    ),
    "overfit": (
        "experiment=small_f8 schedule=constant data.flip=false data.crop=center data.batch_size=4 trainer.steps=400 "
        "trainer.evaluate_every=50",
        "validation/psnr",
    ),
}
FEW = ("overfit",)  # are trained on two videos


def main() -> None:
    """Cut the videos, train, make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "heldout", "work"):
        parser.add_argument(name, metavar=name.upper(), type=Path)
    parser.add_argument("cases", metavar="CASE", nargs="*", choices=[[], *CASES], help=", ".join(CASES))
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    few = work / "few"
    few.mkdir(parents=True, exist_ok=True)
    for video in sorted(path for path in arguments.train.iterdir() if path.is_file())[:2]:
        shutil.copy(video, few)
    for name, videos in (("train", arguments.train), ("heldout", arguments.heldout), ("two", few)):
        if not (work / name).exists():
            command("shard", videos, "--out", work / name, "resolution=64", "crf=8", "keyframe_every=1")
    for name in arguments.cases or CASES:
        typed, metric = CASES[name]
        data = [f"data.root={work / ('two' if name in FEW else 'train')}", f"data.val_root={work / 'heldout'}"]
        command("train", f"run_dir={work / name}", *ALL.split(), *data, *typed.split())
        target = PAGE.with_suffix("") / f"{name}.png"
        target.parent.mkdir(exist_ok=True)
        picture(work / name, metric).save(target, optimize=True)
        said = what_it_said(work / name)
        print(f"{target}: {target.stat().st_size} bytes\n{said}\n", flush=True)
        quote(name, said)


def command(*words: object) -> None:
    """Run a command of vqgan, which may fail: that is what this is about."""
    print("+ vqgan", *words, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("vqgan")), *map(str, words)], check=False)


def what_it_said(run: Path) -> str:
    """The run's advice, and how it ended."""
    said = [str(row["text"]) for row in read_rows(run, "advice.jsonl")]
    message = read_object(run, "status.json").get("message")
    words = " ".join([*said, *([str(message).replace(f"{run}/", "")] if message else [])])
    return words or "(No advice: nothing looks for this, or it had not lasted long enough.)"


def quote(name: str, said: str) -> None:
    """Put what a run said under its picture on the page."""
    text = PAGE.read_text(encoding="utf-8")
    under = re.compile(rf"(\(failures/{name}\.png\)\n\n)> [^\n]*\n")
    PAGE.write_text(under.sub(lambda found: f"{found[1]}> {said}\n", text), encoding="utf-8")


def picture(run: Path, metric: str) -> Image.Image:
    """The first frames of the last evaluation, originals above, and a curve with a healthy run's behind it in grey."""
    strips = Image.open(max((run / "reconstructions").glob("step-*.png")))
    side = strips.height // 2
    frames = strips.crop((0, 0, SHOWN * side, 2 * side)).resize((SHOWN * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
    made = Image.new("RGB", (frames.width + GAP + WIDE, frames.height), "white")
    made.paste(frames, (0, 0))
    known = read_metrics(run)
    own = [(known.steps[row], value) for row, value in known.columns[metric].numbers()]
    kept = json.loads((KEPT / "small_f8.json").read_text("utf-8"))["curves"]
    none = {"steps": [step for step, _ in own], "values": [0.0 for _ in own]}  # as of steps that are skipped
    points = kept.get(metric, none)
    healthy = list(zip(points["steps"], points["values"]))
    made.paste(chart(metric, own, healthy), (frames.width + GAP, 0))
    return made.quantize(255)


def chart(title: str, own: list[tuple[float, float]], healthy: list[tuple[float, float]]) -> Image.Image:
    """Two curves over the steps of the first, with the ends of both axes."""
    last = own[-1][0]
    healthy = [point for point in healthy if point[0] <= last]
    drawn = Image.new("RGB", (WIDE, 2 * SIDE), "white")
    draw = ImageDraw.Draw(drawn)
    values = [value for _, value in own + healthy]
    low, high = min(values), max(values)
    left, right, top, bottom = 44, WIDE - 8, 24, 2 * SIDE - 20

    def place(point: tuple[float, float]) -> tuple[float, float]:
        step, value = point
        return left + step / last * (right - left), bottom - (value - low) / ((high - low) or 1) * (bottom - top)

    draw.line([(left, top), (left, bottom), (right, bottom)], fill=FAINT)
    draw.text((left, 4), title, fill=INK)
    for value, height in ((high, top), (low, bottom - 10)):
        draw.text((2, height), f"{value:.3g}", fill=INK)
    draw.text((left, bottom + 5), "step 0", fill=INK)
    draw.text((right - 24, bottom + 5), f"{last:g}", fill=INK)
    draw.line([place(point) for point in healthy], fill=FAINT, width=4, joint="curve")
    draw.line([place(point) for point in own], fill=LINE, width=2, joint="curve")
    return drawn


if __name__ == "__main__":
    main()
