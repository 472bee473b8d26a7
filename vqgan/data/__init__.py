"""The choices of `conf/data`: folders that become uint8 clips (time, height, width, rgb)."""

from vqgan.data.folder import BadFiles, ClipDataset, Folder
from vqgan.data.images import Images
from vqgan.data.loader import Loader
from vqgan.data.synthetic import SyntheticVideos
from vqgan.data.videos import Videos

__all__ = ["BadFiles", "ClipDataset", "Folder", "Images", "Loader", "SyntheticVideos", "Videos"]
