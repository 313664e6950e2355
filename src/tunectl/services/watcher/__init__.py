"""The watcher: what moves a retrain from its first trigger to its end."""
