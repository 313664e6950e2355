"""Floor 7: words in, one call, exit code out."""
