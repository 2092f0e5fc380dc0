"""distilrec components: students."""
