"""Real fields that stand in for the official benchmarks, called by their own names."""
