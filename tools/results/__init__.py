"""Results on real photographs; see docs/RESULTS.md."""
