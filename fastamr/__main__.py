"""``python -m fastamr`` is the command line."""

import sys

from fastamr.cli import main

if __name__ == "__main__":
    sys.exit(main())
