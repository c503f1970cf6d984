"""Training: losses, objectives, the loop, targets, label stores, extra windows."""
