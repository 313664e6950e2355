"""Choose and build the backends of each stage."""
