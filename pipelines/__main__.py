"""``python -m pipelines COMMAND …``, the same as ``distilrec COMMAND …``."""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the Python of a cluster may be any
        sys.exit(f"error: distilrec needs Python 3.11 or newer, this is {sys.version.split()[0]} ({sys.executable})")
    from pipelines.cli import main

    main()
