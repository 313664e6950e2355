"""See it heal: the whole loop with real processes, told as it happens. ``heal.py`` plays it on the example."""
