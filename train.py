"""Train a VQGAN tokenizer.

    python train.py                                   the demo: offline, minutes on a CPU
    python train.py data=videos data.root=DIR         your videos
    python train.py experiment=f16 data=videos data.root=DIR

`python train.py --help` shows the groups and every key.
"""

from vqgan.commands import run

if __name__ == "__main__":
    run("train")
