"""Another tool's training file as one of our experiments, and a list of what has no counterpart. Only names are shared with those projects."""
