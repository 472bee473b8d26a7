"""Train VQGAN tokenizers on folders of videos.

Importing the package is quick: torch is loaded when something that needs it is first used.
"""

__version__ = "0.1.0"
