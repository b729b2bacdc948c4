"""Batches, the training loop, optimizers and metrics."""
