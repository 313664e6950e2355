"""Start the processes of a training: one module per launcher, the worker that each process runs, and what they share."""
