"""`worker demo`: the whole product on this machine, with no account and no Redis installed."""

from __future__ import annotations


def main(keep: bool, as_json: bool) -> int:
    """
    Play the demo and return its exit code: 0, 1 when something it shows did not come true, 130 when interrupted.

    Raises:
        Unavailable: this machine has no Redis of either kind; the text names the cure.
    """
    # Its helper processes import this package as well, and need none of that.
    from worker.demo.play import play

    return play(keep, as_json)
