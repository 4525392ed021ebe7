"""Synthetic peers and films: what `make run`, the tests and the benchmarks feed the worker with."""
