"""Tables and figures of the paper, and the trainings that they need."""
