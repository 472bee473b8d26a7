"""Sweeps: many runs from one command, on existing engines: Hydra's launchers, Optuna, SLURM."""
