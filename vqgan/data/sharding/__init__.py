"""A corpus as tar shards of short clips, on a disk or in object storage."""
