"""What a served model was asked, what it answered, and what people said about it."""
