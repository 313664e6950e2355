"""SLURM, Kubernetes and Ray, by their command lines: the file that each reads, and what it says about a job."""
