"""SLURM, Kubernetes and Ray, by their command lines: the file that each reads, and the state of a job."""
