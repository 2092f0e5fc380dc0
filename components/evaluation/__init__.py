"""distilrec components: evaluation."""
