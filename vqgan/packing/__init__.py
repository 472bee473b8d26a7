"""What do other engines read? Packs of tokens: `vqgan.packing.open`."""

from vqgan.packing.folder import Document, Pack, open
from vqgan.packing.layout import Layout

__all__ = ["Document", "Layout", "Pack", "open"]
