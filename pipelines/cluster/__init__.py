"""Clusters: where each stage runs, what it will need, and runs as jobs."""
