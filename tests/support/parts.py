"""The parts that tests of everything else are built of, whatever is the default today."""

PLAIN = ("backbone=tiny", "optimizer=adam_fast", "schedule=constant")
