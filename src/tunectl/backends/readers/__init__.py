"""Read file formats and remote sources."""
