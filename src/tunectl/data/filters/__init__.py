"""Transforms that repair, mask or drop records."""
