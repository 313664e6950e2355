"""The terminal, child processes and memory of this machine."""
