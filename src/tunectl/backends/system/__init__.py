"""Terminal output, child processes, sockets between processes, and memory allocation of this machine."""
