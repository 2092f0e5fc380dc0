"""distilrec components: reports."""
