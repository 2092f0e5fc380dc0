"""The Ray Serve application, its request schema and its configuration."""
