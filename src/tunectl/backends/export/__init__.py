"""Export a model to the format of an engine, convert GGUF files, and build a release's Bento and image."""
