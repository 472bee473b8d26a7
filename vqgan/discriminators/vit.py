"""A vision transformer that is read from a file, and whose tokens others look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import ConfigError
from vqgan.files.weights import tensors_in
from vqgan.layers import Frozen

HEAD = 64  # numbers of an attention head, in every transformer that DINO published


class ViT(Frozen):
    """The vision transformer of DINO (Caron et al. 2021, arXiv:2104.14294), with its names of tensors, and timm's.

    tokens = [class, W · patch + b …] + positions
    block:  tokens += attention(norm(tokens)), then tokens += W₂ · gelu(W₁ · norm(tokens))

    Patch, width and depth are the file's, and the side of pictures follows from its positions.

    Args:
        weights: a file of tensors `cls_token`, `pos_embed`, `patch_embed.proj.weight`, `blocks.0.attn.qkv.weight` …
        key: of yaml, that named the file.

    Raises:
        ConfigError: the file is missing, or holds something else.

    Attributes:
        width: numbers of a token.
        side: pixels of a picture.
        grid: patches along a side.
    """

    def __init__(self, weights: Path, key: str) -> None:
        super().__init__()
        try:
            self._build(tensors_in(weights, key))
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{key} does not hold a vision transformer of DINO's: {error}.") from None
        self.side = self.grid * self.patch
        self.requires_grad_(False).eval()

    def forward(self, pictures: Float[Tensor, "n 3 side side"]) -> Iterator[Float[Tensor, "n tokens width"]]:
        """The tokens that enter the first block, then those that leave each; the class's is the first of them."""
        patches = self.patch_embed["proj"](pictures).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        yield tokens
        for block in self.blocks:
            tokens = block(tokens)
            yield tokens

    @torch.no_grad()
    def _build(self, state: dict[str, Tensor]) -> None:
        self.width, _, self.patch, _ = state["patch_embed.proj.weight"].shape
        if self.width % HEAD:
            raise ValueError(f"its tokens have {self.width} numbers, not a multiple of {HEAD}")
        self.grid = math.isqrt(state["pos_embed"].shape[1] - 1)
        self.cls_token = nn.Parameter(torch.empty(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid**2, self.width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, self.width, self.patch, stride=self.patch)})
        depth = len([name for name in state if name.startswith("blocks.") and name.endswith(".norm1.weight")])
        self.blocks = nn.ModuleList(Block(self.width, len(state["blocks.0.mlp.fc1.bias"])) for _ in range(depth))
        for name, parameter in self.named_parameters():  # not by `load_state_dict`, which leaves what is frozen
            if state[name].shape != parameter.shape:
                raise ValueError(f"{name} is {tuple(state[name].shape)}, not {tuple(parameter.shape)}")
            parameter.copy_(state[name])


class Block(nn.Module):
    """Attention, then two layers for each token, both added to what comes in."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, tokens: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        """Tokens to tokens."""
        n, count, width = tokens.shape
        qkv = self.attn["qkv"](self.norm1(tokens)).view(n, count, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(n, count, width)
        tokens = tokens + self.attn["proj"](attended)
        return tokens + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(tokens))))
