"""Small repetitions of the paper's claims; tools/run_experiments.py runs them."""
