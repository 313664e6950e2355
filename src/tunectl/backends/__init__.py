"""Wrappers of third-party libraries, which are imported inside functions."""
