"""The process `flysync`, by its script and by `python -m flysync`: signals are ours before anything else is loaded."""

from __future__ import annotations

from flysync.cli.signals import SIGNALS


def main() -> None:
    """Run the command line."""
    SIGNALS.catch()
    from flysync.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
