"""Programs that run long: the server, and later the monitor and the watcher."""
