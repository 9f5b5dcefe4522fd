"""Core's model parts: encoders of masks and prompts, action heads, and the model that joins them to a backbone."""
