"""HTTP service of a student, and the page that it serves."""
