"""Floor 4: from raw rows to trustworthy examples. Pure."""
