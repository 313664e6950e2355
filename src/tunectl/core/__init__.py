"""Floor 1: errors, log, progress and late imports. Standard library only."""
