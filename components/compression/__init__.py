"""Smaller students: item vectors in blocks, a two-level softmax, shared layers (CpRec, Sun et al. 2020)."""
