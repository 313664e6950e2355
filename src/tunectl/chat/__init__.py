"""What several rooms share: rendering a chat template, and which tokens of it are trained."""
