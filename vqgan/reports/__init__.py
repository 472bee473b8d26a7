"""What does a person see? Pages of a run, of several, and comparisons."""
