"""Supervised fine-tuning: the tokenized data set and the report."""
