"""Preference learning: rewards, order of rollouts, validation and the report."""
