"""Run a training or a generation on several processes: torchrun, Ray Train, and model replicas on one machine."""
