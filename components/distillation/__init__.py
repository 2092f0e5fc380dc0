"""distilrec components: distillation."""
