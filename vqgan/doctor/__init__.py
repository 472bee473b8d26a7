"""Is this machine, and is this folder, fit to train on? What `vqgan doctor` finds out."""
