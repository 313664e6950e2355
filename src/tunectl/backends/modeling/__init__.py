"""Load PyTorch models, generate with them, and compute the losses, log-probabilities and rewards that trainings need."""
