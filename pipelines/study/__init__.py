"""Studies: many trials of one run's students, compared as a paper compares them."""
