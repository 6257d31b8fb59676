"""`python -m worker`, and the command `worker`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from worker.cli.app import app

    app(prog_name="worker")


if __name__ == "__main__":
    main()
