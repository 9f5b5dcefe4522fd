"""Pixel annotations beside a dataset: the sidecar's format, its writer and reader, and prompts derived from masks."""
