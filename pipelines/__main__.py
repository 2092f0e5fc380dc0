"""``python -m pipelines COMMAND …``, the same as ``distilrec COMMAND …``."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
