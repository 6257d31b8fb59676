"""Only `worker.connection` builds a Redis client."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Calls that make a client or a pool. Annotations and isinstance checks have no bracket behind the name.
MAKES = re.compile(
    r"\b(?:Redis|StrictRedis|RedisCluster|Sentinel|ConnectionPool|BlockingConnectionPool)"
    r"(?:\.from_url|\.from_pool)?\("
    r"|\bredis\.from_url\("
)


def test_only_one_place_builds_a_redis_client() -> None:
    makers = {
        str(path.relative_to(ROOT))
        for folder in ("worker", "contracts")
        for path in (ROOT / folder).rglob("*.py")
        if MAKES.search(path.read_text("utf-8"))
    }

    # FakeRedis( is a Redis made of Python; the word boundary leaves it out.
    assert makers == {"worker/connection.py"}
