"""The stages as Ray jobs, the run graph and the command line."""
