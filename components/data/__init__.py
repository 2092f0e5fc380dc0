"""distilrec components: data."""
