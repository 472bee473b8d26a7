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

import vqgan

run, videos = sys.argv[1:3]
tokenizer = vqgan.load(run)
_, height, width = tokenizer.downsampling
print(f"{tokenizer.quantizer.codebook_size} codes, one for {height}×{width} pixels")

# %% [markdown]
# A folder, on the disk. The command can be stopped and typed again; `torchrun` shares the work between GPUs. What
# cannot be decoded is left out and listed. `square=true` gives all videos the same grid of codes.

# %%
subprocess.run(["vqgan", "encode", run, videos, "--out", "tokens", "fps=8", "square=true"], check=True)
tokens = vqgan.tokens.open("tokens")
print(tokens)

# %% [markdown]
# One video, in memory: integers (frames, rows, columns), and what is needed to show it again.

# %%
video = tokenizer.encode_video(Path(videos, tokens.paths[0]), fps=8, square=True)
print(video, video.codes.shape, video.codes.dtype)
tokenizer.decode_video(video, "reconstruction.mp4")

# %% [markdown]
# What the next model is trained on: batches without end, each of whole frames; or all clips, as a data set.

# %%
batch = next(tokens.batches(times=2, batch_size=4, seed=0))
print("inputs", batch.inputs.shape, "targets", batch.targets.shape, "places", batch.places.shape)

clips = tokens.clips(frames=4)
frames = tokenizer.decode(clips[0])  # (time, rgb, height, width), nominally in [-1, 1]
print("frames", frames.shape)
