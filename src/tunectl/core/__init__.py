"""Errors, logging, progress and optional imports. Standard library only."""
