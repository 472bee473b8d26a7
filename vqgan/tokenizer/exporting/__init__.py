"""Tokenizers for other programs: `formats` has a file for each kind of folder that `vqgan export` writes."""
