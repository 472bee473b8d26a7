"""What do the tokens cost? A transformer trained on them, the bits that they have under it, and what it goes on to."""
