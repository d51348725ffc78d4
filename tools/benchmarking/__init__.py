"""The parts of tools/benchmark.py: one concept a file."""
