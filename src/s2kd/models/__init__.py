"""Models: backbones, students and teachers, and their folders."""
