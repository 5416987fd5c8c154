"""Shoal beside other ways to move a file: `python benchmarks/peers` says how."""
