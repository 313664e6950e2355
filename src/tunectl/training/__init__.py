"""Floor 4: what is trained and how, as data. Pure."""
