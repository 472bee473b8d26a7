"""Videos: containers, reading, writing, times, cropping."""
