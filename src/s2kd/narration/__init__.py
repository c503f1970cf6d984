"""Narration: facts of a window, narrators, claims, token states."""
