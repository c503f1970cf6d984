"""Built-in experiments, as functions."""
