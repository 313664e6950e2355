"""People who annotate: the queue, active sampling, the arena and their pages."""
