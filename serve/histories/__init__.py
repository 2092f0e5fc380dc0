"""What users took: the run's own interactions, and events that arrive while it serves."""
