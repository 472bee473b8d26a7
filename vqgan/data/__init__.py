"""The choices of `conf/data`: folders that become uint8 clips (time, height, width, rgb)."""

from vqgan.data.bad_files import BadFiles
from vqgan.data.folder import ClipDataset, Corpus, Folder
from vqgan.data.images import Images
from vqgan.data.loader import Loader
from vqgan.data.shards import Shards
from vqgan.data.synthetic import SyntheticVideos
from vqgan.data.videos import Videos
from vqgan.data.workers import Limits

__all__ = [
    "BadFiles", "ClipDataset", "Corpus", "Folder", "Images", "Limits", "Loader", "Shards", "SyntheticVideos", "Videos",
]  # fmt: skip
