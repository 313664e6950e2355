"""Sweeps: the space of settings, trials and results, without Optuna."""
