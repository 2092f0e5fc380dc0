"""distilrec components: training."""
