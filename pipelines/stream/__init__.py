"""Streaming recommendation: one pass over a log in the order of time, predicting before learning."""
