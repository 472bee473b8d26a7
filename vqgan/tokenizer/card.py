"""The model card of a tokenizer, the `README.md` of its folder: what it is, and how to use it."""

from __future__ import annotations

from vqgan.autoencoder import Autoencoder

CARD = """---
library_name: {library}
tags: [vqgan, tokenizer, video]
---
# {title}

A VQGAN tokenizer: {frames} of {side} pixels to {codes}×{codes} codes of a codebook of {size}.{about}

```python
{use}```
{more}"""
USE = """\
import vqgan
tokenizer = vqgan.load("{name}")
indices = tokenizer.encode(frames)      # (n, rgb, h, w) in [-1, 1] -> integer codes
frames = tokenizer.decode(indices)
tokens = tokenizer.encode_video("video.mp4")
"""


def model_card(
    tokenizer: Autoencoder,
    name: str,
    about: str = "",
    more: str = "",
    title: str = "A VQGAN tokenizer",
    use: str = "",
    library: str = "vqgan",
) -> str:
    """The card's text.

    Args:
        tokenizer: whose.
        name: by which `vqgan.load` finds it, from where its reader is; nothing that tells where it lies here.
        about: where it comes from, and how good it is.
        more: to be read after how it is used.
        title: of the card.
        use: lines of Python with `{name}` in them; none for what `vqgan.load` takes.
        library: that the lines use.
    """
    step = tokenizer.downsampling.time
    return CARD.format(
        title=title,
        frames="frames" if step == 1 else f"the first frame of a video, and then every {step} frames,",
        side=tokenizer.resolution,
        codes=tokenizer.resolution // tokenizer.downsampling.height,
        size=tokenizer.quantizer.codebook_size,
        about=f" {about}" if about else "",
        use=(use or USE).replace("{name}", name),
        library=library,
        more=f"\n{more}" if more else "",
    )
