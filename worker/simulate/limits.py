"""Rate limits as a gateway keeps them: a strict sliding window for each key."""

from __future__ import annotations

from collections import defaultdict, deque


class SlidingWindow:
    """At most ``limit`` calls in any ``seconds``; what is refused does not count. A limit of 0 lets all pass."""

    def __init__(self, limit: int, seconds: float = 1.0) -> None:
        self._limit = limit
        self._seconds = seconds
        self._passed: dict[str, deque[float]] = defaultdict(deque)

    def passes(self, key: str, now: float) -> bool:
        """Let the call pass and count it, or refuse it. ``now`` is in seconds, on a clock that never jumps."""
        if not self._limit:
            return True
        passed = self._passed[key]
        while passed and now - passed[0] >= self._seconds:
            passed.popleft()
        if len(passed) >= self._limit:
            return False
        passed.append(now)
        return True
