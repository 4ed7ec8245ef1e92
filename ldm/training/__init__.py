"""Learning an object: its samples, the fine-tuned weights, the training loop, checkpoints."""
