"""The inference server, from the HTTP socket to the inference log."""
