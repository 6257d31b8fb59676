"""What the one client factory pins, whatever the URL says."""

from __future__ import annotations

import pytest
import redis

from worker.connection import CONNECTION_ERRORS, connect, is_unavailable


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?retry_on_timeout=true&socket_timeout=99&protocol=3&decode_responses=true",
        "rediss://127.0.0.1:1/0",
        "unix:///nowhere/redis.sock?db=1",
    ],
)
def test_no_url_can_make_a_client_repeat_a_command(url: str) -> None:
    client = connect(url, client_name="a name", socket_timeout=3.0)

    pinned = client.connection_pool.connection_kwargs

    assert pinned["retry"].get_retries() == 0
    assert pinned["protocol"] == 2
    assert pinned["decode_responses"] is False
    assert pinned["socket_timeout"] == 3.0
    assert pinned["client_name"] == "a_name"
    client.close()


def test_tls_checks_the_certificate_unless_told_otherwise() -> None:
    client = connect("rediss://127.0.0.1:1/0", client_name="tls")

    connection = client.connection_pool.make_connection()

    assert connection.cert_reqs.name == "CERT_REQUIRED"
    assert connection.check_hostname is True
    client.close()


def test_a_refused_connection_is_an_unavailable_redis() -> None:
    client = connect("redis://127.0.0.1:1/0", client_name="nobody")

    with pytest.raises(CONNECTION_ERRORS) as caught:
        client.ping()

    assert is_unavailable(caught.value)
    client.close()


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.BusyLoadingError("LOADING"),
        redis.exceptions.ReadOnlyError("READONLY"),
        redis.exceptions.OutOfMemoryError("OOM"),
        redis.exceptions.MasterDownError("MASTERDOWN"),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
        redis.ResponseError("Error running script (call to f_0): @user_script:1: -OOM command not allowed"),
    ],
)
def test_a_redis_that_takes_no_writes_is_unavailable(error: redis.RedisError) -> None:
    assert is_unavailable(error)


@pytest.mark.parametrize("error", [redis.ResponseError("WRONGTYPE"), redis.DataError("no")])
def test_a_wrong_command_is_no_outage(error: redis.RedisError) -> None:
    assert not is_unavailable(error)


@pytest.mark.parametrize("ours", [KeyError, OSError, ValueError, Exception])
def test_no_fault_of_ours_is_taken_for_an_outage(ours: type[BaseException]) -> None:
    assert not any(issubclass(ours, error) for error in CONNECTION_ERRORS)
