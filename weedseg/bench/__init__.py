"""Benchmarks: the real code path, one line of JSON a run."""
