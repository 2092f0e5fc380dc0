"""Speed, memory and quality against peers; every script prints a table and writes the same as JSON."""
