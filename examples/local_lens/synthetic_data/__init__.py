"""An invented town of businesses with real Atlanta neighbourhood names: words, phrasings, and the raw files about it."""
