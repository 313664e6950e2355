"""Sweeps: the space of settings, what a trial is, and what is said of the result. No Optuna here."""
