"""What core asks of a dataset, and how prompts are drawn from annotations while training."""
