"""Benchmarks: ratios against a peer in the same run, on the same machine. `make bench`."""
