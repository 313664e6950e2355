"""Find and mask personal data."""
