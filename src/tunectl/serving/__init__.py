"""The server: its modules from the socket to the inference log."""
