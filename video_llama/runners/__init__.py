"""Training: the loop, the optimiser, the learning-rate schedules."""
