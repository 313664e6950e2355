"""Search space, trial records and reports of hyperparameter sweeps, without Optuna."""
