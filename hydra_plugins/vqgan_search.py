"""Where Hydra looks for sweepers, at each of its starts: what is slow to import waits until a search is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig


class Search(Sweeper):
    """The sweeper of `hydra/sweeper=search`, which is `vqgan.sweeps.search`."""

    def __init__(self, **_: Any) -> None:
        """Its values are read from the config."""

    def setup(self, *, config: DictConfig, **context: Any) -> None:
        """Take the config, and what launches jobs."""
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(config=config, **context)

    def sweep(self, arguments: Sequence[str]) -> None:
        """Try what is left to be tried; of the runs' folders everybody reads what came of it."""
        from vqgan.sweeps.search import Search

        Search(self.config, self.launcher, arguments).run()
