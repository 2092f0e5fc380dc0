"""The routes of the endpoint, one file per kind; each has ``router(…)``."""
