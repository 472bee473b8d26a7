"""Each module is a `--format` of the same name: `make(tokenizer, discriminator)` refuses, or gives what is written."""
