"""From a trained adapter to a release: the serving contract, probes and parity."""
