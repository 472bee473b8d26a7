"""What lies on the disk? Folders of tokens: `vqgan.tokens.open`."""

from vqgan.tokens.batches import TokenBatch
from vqgan.tokens.folder import Tokens, TokenVideo, open

__all__ = ["TokenBatch", "TokenVideo", "Tokens", "open"]
