"""`python -m novacore_operator`."""

from novacore_operator.main import main

main()
