"""From a trained run to tokens."""

# %% [markdown]
# # From a trained run to tokens
#
# Cells of a notebook: open this file in an editor that knows `# %%`, or run it whole on a run and a folder of videos:
#
#     python docs/example.py runs/vqgan/2026-01-31_12-00-00 videos

# %%
import subprocess
import sys
from pathlib import Path

import torch

import vqgan

run, videos = sys.argv[1:3]
tokenizer = vqgan.load(run)
_, height, width = tokenizer.downsampling
print(f"{tokenizer.quantizer.codebook_size} codes, one for {height}×{width} pixels")

# %% [markdown]
# One video, in memory: integers (frames, rows, columns), and what is needed to show it again.

# %%
path = next(file for file in sorted(Path(videos).rglob("*")) if file.suffix in (".mp4", ".mkv", ".avi"))
video = tokenizer.encode_video(path, fps=8, square=True)
print(video, video.codes.shape, video.codes.dtype)
tokenizer.decode_video(video, "reconstruction.mp4")

# %% [markdown]
# A folder, on the disk. The command can be stopped and typed again; `torchrun` shares the work between GPUs.

# %%
subprocess.run(["vqgan", "encode", run, videos, "--out", "tokens", "fps=8", "square=true"], check=True)
tokens = vqgan.tokens.open("tokens")
print(f"{len(tokens)} videos, the first: {tokens[0].codes.shape} of {tokens[0].path}")

# %% [markdown]
# What the next model is trained on: clips of codes, or flat sequences; nothing is copied before it is used.

# %%
sequences = tokens.sequences(length=256)
batch = next(iter(torch.utils.data.DataLoader(sequences, batch_size=4, shuffle=True)))
print("inputs", batch[:, :-1].shape, "targets", batch[:, 1:].shape)

clips = tokens.clips(frames=4)
frames = tokenizer.decode(clips[0])  # (time, rgb, height, width), nominally in [-1, 1]
print("frames", frames.shape)
