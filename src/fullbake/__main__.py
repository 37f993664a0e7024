"""`python -m fullbake`."""

from fullbake.cli.main import main

main()
