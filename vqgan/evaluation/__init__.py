"""How good is it? Finished tokenizers, measured."""
