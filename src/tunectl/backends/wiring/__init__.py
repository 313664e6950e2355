"""Put the backends of a stage together."""
