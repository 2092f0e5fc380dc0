"""Measurements of the endpoint over HTTP: a load generator, and one script per question."""
