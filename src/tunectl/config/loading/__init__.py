"""Compose the YAML of conf/, apply overrides, check values, and say where each one comes from."""
