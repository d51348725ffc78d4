"""The cases of ``tools/run_reliability.py``: trainings that are killed, starved and damaged."""
