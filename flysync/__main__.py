"""`python -m flysync`."""

from flysync.cli import main

main()
