"""Predictions on millions of images: many processes, results in shards, runs that continue."""
