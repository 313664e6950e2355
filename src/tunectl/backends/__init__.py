"""Floor 5: one third-party library a file, imported inside functions."""
