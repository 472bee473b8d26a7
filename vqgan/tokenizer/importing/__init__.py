"""Other projects' checkpoints as tokenizers of this one: `kinds` has a file for each project."""
