"""The seam: what a backbone adapter implements, and the data that crosses it."""
