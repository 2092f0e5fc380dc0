"""Recformer: items and histories as text, read by one language model (Li et al. 2023)."""
