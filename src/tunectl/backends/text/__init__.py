"""Text metrics, embeddings, encodings and personal data lists."""
