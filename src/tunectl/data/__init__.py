"""From raw rows to curated, split examples."""
