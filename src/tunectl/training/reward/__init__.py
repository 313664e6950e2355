"""The reward model: pairs, metrics, its gate and artifacts."""
