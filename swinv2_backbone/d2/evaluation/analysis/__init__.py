"""What a finished run got right and wrong: tables and pictures from its files, without a model."""
