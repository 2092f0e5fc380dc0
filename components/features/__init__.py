"""distilrec components: features."""
