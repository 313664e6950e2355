"""Confidence intervals and statistical tests."""
