"""Export a model and build the Bento."""
