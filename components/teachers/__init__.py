"""distilrec components: teachers."""
