"""Choose and build the backends of each stage: real libraries, and launchers for several processes."""
