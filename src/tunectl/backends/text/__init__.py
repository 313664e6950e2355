"""Text metrics, embeddings, encodings and lists for finding personal data."""
