"""distilrec components: layers."""
