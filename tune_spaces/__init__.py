"""One small file per search space."""
