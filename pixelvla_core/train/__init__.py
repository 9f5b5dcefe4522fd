"""Training: stages of a recipe, on one process or many, with exact resume."""
