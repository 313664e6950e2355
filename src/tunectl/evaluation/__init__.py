"""Metrics, paired comparisons, win rates and the gate."""
