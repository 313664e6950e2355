"""Assign records to train, validation and test without leaks."""
