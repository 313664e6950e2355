"""Submit jobs to SLURM, Kubernetes and Ray by their command-line programs, and read the states of those jobs."""
