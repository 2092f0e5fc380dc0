"""Runs that are kept in an object store: finished nodes go there, and machines without them fetch them."""
