"""Closed-loop evaluation: seeded episodes in parallel processes, and the statistics of their outcomes."""
