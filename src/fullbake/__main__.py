"""`python -m fullbake`."""

from fullbake.cli import main

main()
