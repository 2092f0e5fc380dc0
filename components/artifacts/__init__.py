"""distilrec components: artifacts."""
