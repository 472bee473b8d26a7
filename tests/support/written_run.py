"""A run folder that was written by hand, to be shown in a report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

CLIPS, SIDE = 4, 32  # in a picture, and of each frame in pixels
MOVING, FRAMES = 2, 5  # clips with all their frames
ORIGINAL, RECONSTRUCTION = (200, 30, 30), (30, 30, 200)


def write_run(folder: Path, rows: Sequence[dict[str, Any]], **overrides: Any) -> Path:
    """A run of 100 steps that was evaluated at every tenth, with pictures, and with these rows of metrics."""
    (folder / "reconstructions").mkdir(parents=True)
    write_lines(folder / "metrics.jsonl", rows)
    for name in ("step-00000000", "step-00000050", "step-00000100", "worst", "best"):
        write_picture(folder / "reconstructions" / f"{name}.png")
    clips = [{"clip": n, "source": f"videos/clip {n}.mp4", "psnr": 10.0 + n} for n in range(CLIPS)]
    ranking = {"step": 100, "worst": clips, "best": clips[::-1]}
    write_moving(folder)
    ranking |= {"moving": clips[:MOVING], "moment": {"frame": 2, "second": 1.25, "psnr": 7.5}}
    (folder / "reconstructions" / "ranking.json").write_text(json.dumps(ranking))
    shares = [0.5, 0.25, 0.25, *[0.0] * 13]
    use = {"codebook_size": 16, "shares": shares, "perplexity": 3.0}
    write_lines(folder / "codebook.jsonl", [{"step": n, "dead": 13 - n // 10, **use} for n in (0, 50, 100)])
    (folder / "environment.json").write_text(json.dumps({"torch": "2.13", "platform": "Linux"}))
    values = {"trainer.steps": 100, "seed": 0, **overrides}
    write_config(folder, values)
    return folder


def write_config(folder: Path, values: dict[str, Any]) -> None:
    """`overrides.yaml` and a `config.yaml` of these values alone."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        place = nested
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    (folder / "config.yaml").write_text(json.dumps(nested))  # JSON is yaml
    (folder / "overrides.yaml").write_text(json.dumps([f"{key}={value}" for key, value in values.items()]))


def write_lines(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A file with a row of JSON per line."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_picture(file: Path, result: tuple[int, int, int] = RECONSTRUCTION) -> None:
    """Originals of one colour above reconstructions of another."""
    picture = Image.new("RGB", (CLIPS * SIDE, 2 * SIDE), ORIGINAL)
    picture.paste(result, (0, SIDE, CLIPS * SIDE, 2 * SIDE))
    picture.save(file)


def write_moving(folder: Path) -> None:
    """Clips that become brighter from frame to frame, and reconstructions that are all black."""
    for place in range(MOVING):
        picture = Image.new("RGB", (FRAMES * SIDE, 2 * SIDE))
        for frame in range(FRAMES):
            level = 50 * (frame + 1)
            picture.paste((level, level, level), (frame * SIDE, 0, (frame + 1) * SIDE, SIDE))
        picture.save(folder / "reconstructions" / f"moving-{place}.webp", lossless=True)


def ordinary_rows(count: int = 101) -> list[dict[str, Any]]:
    """Rows as training writes them: one a step, with an evaluation at every tenth."""
    rows: list[dict[str, Any]] = []
    for step in range(count):
        row: dict[str, Any] = {"step": step, "time": 1e9 + 2 * step}
        row["train/total"] = math.exp(-step / 30) + 0.1 * (step % 2)
        row |= {"codebook/perplexity": 3.0 + step / 20, "learning_rate/autoencoder": 1e-3}
        row |= {"adversarial/logits_real": 0.5, "adversarial/logits_fake": -0.5, "adversarial/weight": 0.1 + step / 100}
        row |= {"speed/frames_per_second": 50.0, "speed/data_wait": 0.01}
        if step % 10 == 0:
            row |= {"validation/psnr": 10 + step / 10, "validation/psnr_mean_colour": 12.0, "validation/usage": 0.5}
        rows.append(row)
    return rows
