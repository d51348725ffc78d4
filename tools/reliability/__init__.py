"""What is measured about reliability: how often something fails, and what is noticed of it."""
