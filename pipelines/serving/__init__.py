"""Commands around the endpoint."""
