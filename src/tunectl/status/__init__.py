"""The content of `tunectl status`."""
