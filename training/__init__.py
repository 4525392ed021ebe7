"""Training: from NIH's films to a model bundle. The worker knows nothing of it."""
