"""One request, in the order of its modules, from the socket to the inference log."""
