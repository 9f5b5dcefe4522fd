"""The annotation pipeline: from a recorded dataset to its pixel annotations, step by step."""
