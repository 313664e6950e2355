"""Seams to third-party libraries, which are imported inside functions."""
