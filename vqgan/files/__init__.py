"""Files: read within limits, written whole, held by one process."""
