"""What lies on the disk? Folders of tokens: `vqgan.tokens.open`."""

from vqgan.tokens.folder import Tokens, TokenVideo, open

__all__ = ["TokenVideo", "Tokens", "open"]
