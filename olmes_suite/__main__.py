"""`python -m olmes_suite` is the command `olmes`."""

from olmes_suite.cli.main import main

main()
