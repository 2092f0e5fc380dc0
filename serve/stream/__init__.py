"""The endpoint of a streaming model: it learns from the ratings that it is sent, while it answers."""
