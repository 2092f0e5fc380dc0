"""Streaming recommendation with searched embedding sizes: FIXED, DARTS, AutoEmb and ESAPN (Liu et al., SIGIR 2020)."""
