"""Training: recipes, objective, loop, checkpoints; needs torch."""
