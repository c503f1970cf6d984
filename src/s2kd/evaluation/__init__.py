"""Evaluation: scores, intervals, comparisons, figures, reports."""
