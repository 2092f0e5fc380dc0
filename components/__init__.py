"""Plain Python and PyTorch parts of distilrec; nothing here imports Ray."""
