"""Text metrics, embeddings, encodings, languages, and resources for finding personal data."""
