"""How the processes of a fit are started: one module an engine, the worker that each process runs, and what they share."""
