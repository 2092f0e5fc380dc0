"""The search for the best small student under a budget, on Ray Tune."""
