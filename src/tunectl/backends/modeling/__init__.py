"""PyTorch models: loading, decoding, LoRA kernels and training runs."""
