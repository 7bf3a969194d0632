"""`python -m novacore`."""

from novacore.cli import main

main()
