"""Run sweeps as Optuna studies: claim trials, record outcomes, prune, and read results."""
