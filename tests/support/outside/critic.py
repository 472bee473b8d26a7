from torch import Tensor, nn

from vqgan.frames import per_frame


class Critic(nn.Module):
    """A logit for each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(3, channels, 4, stride=4), nn.SiLU(), nn.Conv2d(channels, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        return per_frame(self.main, frames).mean((-3, -2, -1))
