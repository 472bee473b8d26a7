"""Many files, read by processes that may die."""
