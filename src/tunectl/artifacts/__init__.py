"""Floor 2: what lies on disk. Records, layout, atomic input and output, manifests, row accounts."""
