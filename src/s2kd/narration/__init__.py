"""Narration."""
