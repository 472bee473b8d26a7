"""The choices of `conf/data`: folders that become uint8 clips (time, height, width, rgb)."""

from vqgan.data.corpus import ClipDataset, Corpus
from vqgan.data.folder import Folder
from vqgan.data.images import Images
from vqgan.data.loader import Loader
from vqgan.data.reading.bad_files import BadFiles
from vqgan.data.reading.limits import Limits
from vqgan.data.shards import Shards
from vqgan.data.synthetic import SyntheticVideos
from vqgan.data.videos import Videos

__all__ = [
    "BadFiles", "ClipDataset", "Corpus", "Folder", "Images", "Limits", "Loader", "Shards", "SyntheticVideos", "Videos",
]  # fmt: skip
