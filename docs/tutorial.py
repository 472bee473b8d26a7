"""Run every command of tutorial.md on videos that are drawn here, and make its pictures anew.

    python docs/tutorial.py WORK          an hour's tutorial in some minutes; writes docs/tutorial/*.png
    python docs/tutorial.py WORK --toy    at toy size, as its test does; writes WORK/pictures/*.png

WORK is an empty folder.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import vqgan
from vqgan.data.synthetic import draw_video
from vqgan.frames import to_frames
from vqgan.video.writer import write_video

PAGE = Path(__file__).with_suffix(".md")
SIDE, SHOWN = 192, 4  # pixels of a frame in a picture, and frames
TOY = {
    "train": "schedule=constant trainer.steps=2 data.validation_clips=2 data.batch_size=2 backbone.channels=8 "
    "data.workers=0 model.quantizer.codebook_size=16 trainer.device=cpu",
    "evaluate": "clips=2 replicates=20 device=cpu data.workers=0",
    "encode": "device=cpu workers=0",
    "decode": "device=cpu",
}


def main() -> None:
    """Draw videos, run the page, make its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    count, side = (6, 32) if arguments.toy else (60, 64)
    (work / "videos").mkdir(parents=True)
    for number in range(count):
        write_video(work / "videos" / f"{number:02}.mp4", draw_video(number, 48, side), 24)
    for language, text in blocks():
        run(language, text, work, arguments.toy)
    pictures = work / "pictures" if arguments.toy else PAGE.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for name in ("first", "second"):
        reconstructions(work / "runs" / name).save(pictures / f"{name}.png", optimize=True)
    tokens_of_a_frame(work).save(pictures / "tokens.png", optimize=True)
    print(f"{pictures} has its pictures.")


def blocks() -> list[tuple[str, str]]:
    """The commands and the Python of the page, in their order."""
    return re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def run(language: str, text: str, work: Path, toy: bool) -> None:
    """Run a block in a folder, at toy size if that is wanted."""
    lines = [[sys.executable, "-c", text]] if language == "python" else []
    for line in text.splitlines() if language == "sh" else []:
        program, *words = line.split()
        small = TOY.get(words[0], "").split() if toy else []
        lines.append([str(Path(sys.executable).with_name(program)), *words, *small])
    for command in lines:
        print("+", " ".join(Path(word).name if n == 0 else word for n, word in enumerate(command)), flush=True)
        subprocess.run(command, cwd=work, check=True, env=os.environ | {"WANDB_MODE": "offline"})


def reconstructions(run: Path) -> Image.Image:
    """The first frames of the last evaluation, originals above."""
    picture = Image.open(max((run / "reconstructions").glob("step-*.png")))
    side = picture.height // 2
    width = min(picture.width, SHOWN * side)
    return picture.crop((0, 0, width, 2 * side)).resize((width * SIDE // side, 2 * SIDE), Image.Resampling.NEAREST)


def tokens_of_a_frame(work: Path) -> Image.Image:
    """A frame, its tokens as colours, and what they stand for."""
    tokenizer, video = vqgan.load(str(work / "runs" / "second")), vqgan.tokens.open(work / "tokens")[0]
    codes = np.asarray(video.codes[0]).astype(np.int64)
    colours = np.random.default_rng(0).integers(64, 256, (tokenizer.quantizer.codebook_size, 3), dtype=np.uint8)
    number = int(Path(video.path).stem)
    side = codes.shape[0] * tokenizer.downsampling.height
    with torch.no_grad():
        back = tokenizer.decode(torch.from_numpy(codes)[None])[0]
    original = draw_video(number, 48, side)[0]
    decoded = ((back.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert to_frames(torch.from_numpy(original)[None, None]).shape[-1] == back.shape[-1]
    picture = Image.new("RGB", (3 * SIDE + 2 * 16, SIDE), "white")
    for place, pixels in enumerate((original, colours[codes], decoded)):
        shown = Image.fromarray(np.ascontiguousarray(pixels)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        picture.paste(shown, (place * (SIDE + 16), 0))
    return picture


if __name__ == "__main__":
    main()
