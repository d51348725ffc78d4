"""The parts of tools/benchmark.py, one concept in each file."""
