"""Small repetitions of the paper's claims, which tools/run_experiments.py runs."""
