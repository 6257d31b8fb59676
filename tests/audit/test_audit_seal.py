"""The audit trail: whatever is altered, removed, inserted or moved in it is found and named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from tests.desk import Wire
from worker.audit import verify as verifying
from worker.audit.chain import Entry, Seal, seal
from worker.audit.sealer import CUT_EVERY, Sealer
from worker.audit.verify import Verified, verify
from worker.cli.app import app
from worker.cli.context import Surroundings
from worker.clock import ManualClock
from worker.keys import RouteKeys
from worker.logs import configure, silent

KEYS = RouteKeys("default")


@pytest.fixture
def client(any_redis: Any) -> Any:
    return any_redis.connect()


def sealer(client: Any, **changes: Any) -> Sealer:
    """One that puts four entries under a seal."""
    options: dict[str, Any] = {
        "retention": 3600.0,
        "log": silent(),
        "clock": ManualClock(),
        "worker": "w1",
        "entries_max": 4,
    }
    return Sealer(client, "default", **(options | changes))


def happen(client: Any, count: int, first: int = 0, **where: Any) -> list[bytes]:
    """So many entries, as the ledger's scripts write them. Returns their ids."""
    return [
        client.xadd(
            KEYS.audit,
            {"worker": "w1", "records": json.dumps([["settled", f"i-{number}", "ACCEPTED", "12345678"]])},
            **where,
        )
        for number in range(first, first + count)
    ]


def rewrite(
    client: Any, change: Callable[[list[tuple[bytes, dict[bytes, bytes]]]], None], stream: str
) -> None:
    """What somebody does who may write to Redis and wants the trail to say something else."""
    rows = client.xrange(stream)
    change(rows)
    client.delete(stream)
    for entry_id, fields in rows:
        client.xadd(stream, fields, id=entry_id)


def found(client: Any, *against: str) -> Verified:
    return verify(client, "default", against)


def seals(client: Any) -> list[Seal]:
    return [Seal.read(fields) for _, fields in client.xrange(KEYS.seals)]


# --- A sound trail ------------------------------------------------------------------------------------------


def test_a_trail_that_nobody_touched_is_sound_and_what_is_not_sealed_yet_is_told(client: Any) -> None:
    ids = happen(client, 10)
    sealer(client).turn()
    late = happen(client, 2, first=10)

    result = found(client)

    assert result.fault is None
    assert (result.entries, result.seals) == (10, 3)
    assert (result.first, result.last) == (ids[0].decode(), ids[-1].decode())
    assert (result.unsealed, result.unsealed_from) == (2, late[0].decode())


def test_a_route_without_a_trail_is_sound(client: Any) -> None:
    sealer(client).turn()

    assert found(client) == Verified("default", 0, 0, None, None, None, 0, None, None)


def test_sealing_goes_on_where_another_worker_stopped(client: Any) -> None:
    happen(client, 3)
    first = sealer(client)
    first.turn()
    first.leave()
    happen(client, 3, first=3)
    sealer(client, worker="w2").turn()

    assert [one.count for one in seals(client)] == [3, 3]
    assert found(client).fault is None


def test_while_one_worker_seals_the_others_leave_it_alone(client: Any) -> None:
    happen(client, 3)
    sealer(client).turn()
    happen(client, 3)
    sealer(client, worker="w2").turn()

    assert found(client).unsealed == 3


def test_two_sealers_at_once_make_one_chain(client: Any) -> None:
    """As when a lease ends under a worker that is only slow: each believes that it seals alone."""
    one, two = sealer(client), sealer(client, worker="w2")
    for number in range(6):
        happen(client, 3, first=number)
        client.delete(KEYS.sealer)
        one.turn()
        happen(client, 3, first=number)
        client.delete(KEYS.sealer)
        two.turn()
        two.turn()

    result = found(client)

    assert result.fault is None
    assert (result.entries, result.unsealed) == (36, 0)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_sealer_that_dies_at_any_of_its_calls_leaves_a_chain_that_verifies(
    client: Any, after: bool
) -> None:
    calls = 0
    for number in range(1, 40):
        for key in client.keys("exec:*"):
            client.delete(key)
        old_trail(client)
        wire = Wire()
        wire.strike(number, after=after, error=redis.ConnectionError("gone"))
        dying = sealer(_Through(client, wire), retention=1800.0)
        try:
            dying.turn()
        except Exception as error:  # noqa: BLE001  the process is gone, whatever it says
            assert "gone" in str(error)
        else:
            calls = number
            break
        assert found(client).fault is None
        client.delete(KEYS.sealer)
        happen(client, 3)
        successor = sealer(client, worker="w2", retention=1800.0)
        successor.turn()
        result = found(client)
        assert result.fault is None
        # All that is there; but the note of a cut that this turn made.
        assert result.unsealed <= 1

    assert calls > 8


class _Through:
    """A client whose calls go over a wire."""

    def __init__(self, client: Any, wire: Wire) -> None:
        self._client, self._wire = client, wire

    def __getattr__(self, name: str) -> Any:
        return self._wire.through(name, getattr(self._client, name))


# --- Forgetting ---------------------------------------------------------------------------------------------


def old_trail(client: Any) -> None:
    """A trail with three seals from an hour ago, and one of now."""
    seconds, _ = client.time()
    before: Seal | None = None
    for part in range(3):
        at = (seconds - 3600 + part) * 1000
        ids = [
            client.xadd(KEYS.audit, {"worker": "w1", "records": "[]"}, id=f"{at}-{n + 1}") for n in range(4)
        ]
        rows = client.xrange(KEYS.audit, ids[0], ids[-1])
        before = seal(before, [Entry(*row) for row in rows])
        client.xadd(KEYS.seals, before.fields(), id=f"{at + 500}-0")
    happen(client, 5)


def test_a_trail_that_was_cut_by_its_age_verifies_from_its_anchor(client: Any) -> None:
    old_trail(client)
    one = sealer(client, retention=1800.0)
    one.turn()
    client.delete(KEYS.sealer)
    one.turn()

    result = found(client)

    assert seals(client)[0].number == 3
    assert result.fault is None
    assert result.entries == 6  # and one is the note of the cut


def test_what_is_kept_is_cut_again_only_when_there_is_more_to_forget(client: Any) -> None:
    old_trail(client)
    clock = ManualClock()
    one = sealer(client, retention=1800.0, clock=clock)
    for _ in range(3):
        one.turn()
        clock.advance(CUT_EVERY + 1)

    assert sum(b'"cut"' in fields[b"records"] for _, fields in client.xrange(KEYS.audit)) == 1


@pytest.mark.parametrize("records", ['"cut', "[" * 100_000 + '"cut"', '[["cut_off","","\\ud800",""]]'])
def test_what_a_stranger_wrote_into_the_trail_is_no_crash_of_the_command(
    client: Any, cli: Callable[..., Result], records: str
) -> None:
    happen(client, 1)
    client.xadd(KEYS.audit, {"worker": b"\xff", "records": records}, id=f"{2**61}-0")
    sealer(client).turn()

    assert [cli("audit", "verify", *json_).exit_code for json_ in ([], ["--json"])] == [0, 0]


def test_a_trail_that_is_cut_while_it_is_verified_is_no_fault(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_ENTRIES", 2)
    old_trail(client)
    sealer(client).turn()
    client.delete(KEYS.sealer)
    reads = []

    class Reader:
        """At its second look at the trail a worker cuts it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def xrange(self, stream: str, *args: Any, **options: Any) -> Any:
            if stream == KEYS.audit:
                reads.append(stream)
            if len(reads) == 2:
                sealer(client, retention=1800.0, worker="w2").turn()
                # Redis drops whole blocks of entries only, and this trail is a short one.
                client.xtrim(KEYS.audit, minid=seals(client)[0].last, approximate=False)
            return client.xrange(stream, *args, **options)

    reader: Any = Reader()
    result = verify(reader, "default")

    assert result.fault is None
    assert seals(client)[0].number == 3


def test_nothing_that_is_not_sealed_is_ever_forgotten(client: Any) -> None:
    seconds, _ = client.time()
    client.xadd(KEYS.audit, {"worker": "w1", "records": "[]"}, id=f"{(seconds - 7200) * 1000}-0")
    sealer(client, retention=60.0).turn()

    assert found(client).entries == 1


def test_who_cuts_the_beginning_off_is_found_out(client: Any) -> None:
    happen(client, 12)
    sealer(client).turn()
    second = client.xrange(KEYS.seals)[1]
    client.xtrim(KEYS.seals, minid=second[0], approximate=False)
    client.xtrim(KEYS.audit, minid=f"({second[1][b'last'].decode()}"[1:], approximate=False)

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.seal) == ("beginning", 2)


# --- Tampering ----------------------------------------------------------------------------------------------


@pytest.fixture
def ids(client: Any) -> list[str]:
    """Twelve entries under three seals."""
    made = happen(client, 12)
    sealer(client).turn()
    assert found(client).fault is None
    return [one.decode() for one in made]


def test_an_altered_entry_is_named(client: Any, ids: list[str]) -> None:
    rewrite(client, lambda rows: rows[5][1].update({b"worker": b"somebody else"}), KEYS.audit)

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.entry, fault.seal) == ("altered", ids[5], 2)


def test_a_removed_entry_is_named(client: Any, ids: list[str]) -> None:
    client.xdel(KEYS.audit, ids[6])

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.entry, fault.seal) == ("removed", ids[6], 2)


@pytest.mark.parametrize("at", [0, 3, 4, 7])
def test_a_removed_entry_is_named_also_at_the_edge_of_a_seal(client: Any, ids: list[str], at: int) -> None:
    client.xdel(KEYS.audit, ids[at])

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.entry, fault.seal) == ("removed", ids[at], 1 + at // 4)


def test_an_inserted_entry_is_named(client: Any, ids: list[str]) -> None:
    ms, seq = ids[0].split("-")
    earlier = f"{int(ms) - 1}-{seq}"
    rewrite(client, lambda rows: rows.insert(0, (earlier.encode(), rows[0][1])), KEYS.audit)

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.entry, fault.seal) == ("inserted", earlier, 1)


def test_two_entries_that_changed_places_are_named(client: Any, ids: list[str]) -> None:
    def swap(rows: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        rows[8], rows[10] = (rows[8][0], rows[10][1]), (rows[10][0], rows[8][1])

    rewrite(client, swap, KEYS.audit)

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.entry, fault.seal) == ("reordered", ids[8], 3)


def test_the_newest_entries_are_missed(client: Any, ids: list[str]) -> None:
    happen(client, 2)
    client.xdel(KEYS.audit, client.xrevrange(KEYS.audit, count=1)[0][0])

    fault = found(client).fault

    assert fault is not None and fault.what == "end"


def test_the_newest_seal_is_missed(client: Any, ids: list[str]) -> None:
    client.xdel(KEYS.seals, client.xrevrange(KEYS.seals, count=1)[0][0])

    fault = found(client).fault

    assert fault is not None and fault.what == "end"


def test_a_missing_seal_is_named(client: Any, ids: list[str]) -> None:
    client.xdel(KEYS.seals, client.xrange(KEYS.seals)[1][0])

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.seal) == ("seal", 2)


@pytest.mark.parametrize("name", ["number", "first", "last", "count", "marks", "hash", "previous"])
def test_a_seal_that_was_altered_itself_is_named(client: Any, ids: list[str], name: str) -> None:
    def change(rows: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        other = rows[2][1] | {b"number": b"7", b"count": b"9"}
        rows[1][1][name.encode()] = other[name.encode()]

    rewrite(client, change, KEYS.seals)

    fault = found(client).fault

    assert fault is not None
    # An end that was moved makes entries look removed or inserted.
    assert (fault.seal == 2 and fault.what == "seal") or name == "last"


@pytest.mark.parametrize("rubbish", [b"", b"zz", b"\xff", b"-1"])
def test_rubbish_in_a_seal_is_a_fault_and_no_crash(client: Any, ids: list[str], rubbish: bytes) -> None:
    for name in (b"number", b"last", b"hash", b"marks"):
        rewrite(client, lambda rows, name=name: rows[1][1].update({name: rubbish}), KEYS.seals)  # type: ignore[misc]
        assert found(client).fault is not None


def test_an_entry_altered_together_with_its_seal_shows_at_the_next_seal(client: Any, ids: list[str]) -> None:
    rewrite(client, lambda rows: rows[5][1].update({b"worker": b"somebody else"}), KEYS.audit)
    first = seals(client)[0]
    forged = seal(first, [Entry(*row) for row in client.xrange(KEYS.audit)[4:8]])
    rewrite(
        client,
        lambda rows: rows[1][1].update({k.encode(): _bytes(v) for k, v in forged.fields().items()}),
        KEYS.seals,
    )

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.seal) == ("seal", 3)
    assert "does not go on" in fault.text


def _bytes(value: str | int | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


# --- What the route's state remembers -----------------------------------------------------------------------


def begin_anew(client: Any, worker: str) -> Sealer:
    """A sealer that has seen nothing, and whose turn it is."""
    client.delete(KEYS.sealer)
    return sealer(client, worker=worker)


@pytest.mark.parametrize("gone", [[KEYS.seals], [KEYS.audit, KEYS.seals]], ids=["seals", "both"])
@pytest.mark.parametrize("knows", [True, False], ids=["the same sealer", "a new sealer"])
def test_who_deletes_the_seals_is_found_out_before_and_after_the_next_turn_of_a_worker(
    client: Any, cli: Callable[..., Result], gone: list[str], knows: bool
) -> None:
    happen(client, 12)
    one = sealer(client)
    one.turn()
    last = seals(client)[-1].name
    client.delete(*gone)

    before = cli("audit", "verify", "--json")
    happen(client, 3)
    goes_on = one if knows else begin_anew(client, "w2")
    goes_on.turn()
    goes_on.turn()
    after = found(client)

    assert before.exit_code == 1
    told = json.loads(before.stdout)["fault"]
    assert (told["what"], told["seal"]) == ("remembered", 3) and "seals were removed" in told["text"]
    assert after.fault is not None and (after.fault.what, after.fault.seal) == ("beginning", 4)
    assert any(f"{last}, kept none" in words for words in after.warnings)


def test_an_entry_that_was_altered_while_there_were_no_seals_is_not_signed_by_our_own_worker(
    client: Any, ids: list[str]
) -> None:
    client.delete(KEYS.seals)
    rewrite(client, lambda rows: rows[5][1].update({b"worker": b"somebody else"}), KEYS.audit)
    happen(client, 3)
    begin_anew(client, "w2").turn()

    assert seals(client)[0].number == 4
    assert found(client).fault is not None


def test_a_removed_seal_stays_missed_when_the_chain_goes_on(client: Any, ids: list[str]) -> None:
    client.xdel(KEYS.seals, client.xrevrange(KEYS.seals, count=1)[0][0])
    happen(client, 3)
    begin_anew(client, "w2").turn()

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.seal) == ("seal", 3)


def test_seals_that_were_written_anew_are_not_those_that_the_state_remembers(
    client: Any, ids: list[str]
) -> None:
    rewrite(client, lambda rows: rows[5][1].update({b"worker": b"somebody else"}), KEYS.audit)
    client.delete(KEYS.seals)
    rows = [Entry(*row) for row in client.xrange(KEYS.audit)]
    before: Seal | None = None
    for start in range(0, 12, 4):
        before = seal(before, rows[start : start + 4])
        client.xadd(KEYS.seals, before.fields())

    fault = found(client).fault

    assert fault is not None and (fault.what, fault.seal) == ("remembered", 3)
    assert "written anew" in fault.text


@pytest.mark.parametrize("junk", [b"junk", b"", b"\xff", b"3:51ac:1-1", b"-1:" + b"0" * 64 + b":1-1"])
def test_a_remembered_seal_that_cannot_be_read_is_a_fault_and_ends_no_sealer(
    client: Any, ids: list[str], junk: bytes
) -> None:
    client.hset(KEYS.state, "seal", junk)
    fault = found(client).fault
    happen(client, 3)
    begin_anew(client, "w2").turn()
    after = found(client)

    assert fault is not None and fault.what == "remembered"
    assert after.fault is None and after.unsealed == 0
    assert len(after.warnings) == (1 if junk else 0)


def test_seals_of_workers_that_do_not_remember_them_are_gone_on_from(client: Any, ids: list[str]) -> None:
    """As in the middle of an upgrade, or after a way back."""
    client.hdel(KEYS.state, "seal")
    assert found(client).fault is None and len(found(client).warnings) == 1
    happen(client, 4)
    begin_anew(client, "w2").turn()
    happen(client, 4)
    new = Entry(*client.xrange(KEYS.audit)[16]), *(Entry(*row) for row in client.xrange(KEYS.audit)[17:])
    older = seal(seals(client)[-1], new)
    client.xadd(KEYS.seals, older.fields())
    assert found(client).fault is None
    happen(client, 4)
    begin_anew(client, "w3").turn()

    result = found(client)

    assert (result.fault, result.warnings, result.unsealed, result.seals) == (None, (), 0, 6)


@pytest.mark.parametrize("forged", [{"x": "y"}, {"number": "7"}, {"number": "99"}])
def test_what_is_no_seal_is_named_wherever_it_stands_and_the_chain_goes_on_behind_it(
    client: Any, forged: dict[str, str]
) -> None:
    client.xadd(KEYS.seals, forged)
    one = sealer(client)
    for number in range(3):
        happen(client, 3, first=number)
        one.turn()
        one.turn()
        for _ in range(25):
            client.xadd(KEYS.seals, forged)

    result = found(client)
    real = [fields for _, fields in client.xrange(KEYS.seals) if b"hash" in fields]

    assert result.fault is not None and "is no seal" in result.fault.text
    assert [int(fields[b"number"]) for fields in real] == [1, 2, 3]


def test_what_is_no_seal_keeps_nothing_from_being_forgotten(client: Any) -> None:
    seconds, _ = client.time()
    client.xadd(KEYS.seals, {"x": "y"}, id=f"{(seconds - 7200) * 1000}-0")
    old_trail(client)
    client.xadd(KEYS.seals, {"x": "y"})
    sealer(client, retention=1800.0).turn()

    # What stood before the anchor went with it.
    assert seals_and_others(client)[0] == 3


def seals_and_others(client: Any) -> list[int]:
    return [int(fields.get(b"number", 0)) for _, fields in client.xrange(KEYS.seals)]


def test_what_was_not_sealed_for_a_minute_is_warned_of(client: Any, cli: Callable[..., Result]) -> None:
    seconds, _ = client.time()
    happen(client, 1, id=f"{(seconds - 90) * 1000}-0")
    happen(client, 1)

    done = cli("audit", "verify")

    assert done.exit_code == 0
    assert "WARNING  the oldest entry that is not sealed is 9" in done.stdout
    sealer(client).turn()
    happen(client, 1)
    assert "WARNING" not in cli("audit", "verify").stdout


# --- Against a copy -----------------------------------------------------------------------------------------


def test_a_chain_that_was_written_anew_from_its_first_entry_on_does_not_match_a_copy_in_the_log(
    client: Any, ids: list[str], cli: Callable[..., Result]
) -> None:
    copy = seals(client)[1].name
    assert found(client, copy).fault is None
    rewrite(client, lambda rows: rows[5][1].update({b"worker": b"somebody else"}), KEYS.audit)
    client.delete(KEYS.seals, KEYS.sealer)
    client.hdel(KEYS.state, "seal")
    sealer(client).turn()

    assert found(client).fault is None
    done = cli("audit", "verify", "--route", "default", "--against", copy, "--json")

    assert done.exit_code == 1
    assert json.loads(done.stdout)["fault"]["what"] == "against"


def test_a_copy_of_a_seal_that_the_chain_does_not_reach_is_a_fault(client: Any, ids: list[str]) -> None:
    last = seals(client)[2]
    never = replace(last, number=4)

    fault = found(client, last.name, last.name.upper(), never.name).fault

    assert fault is not None and "does not reach" in fault.text


def test_each_seal_is_logged_and_one_that_has_vanished_under_the_sealer_too(client: Any) -> None:
    logged = io.StringIO()
    one = sealer(client, log=configure("info", "json", stream=logged))
    happen(client, 3)
    one.turn()
    name = seals(client)[0].name
    client.delete(KEYS.seals)
    happen(client, 3)
    one.turn()
    one.turn()

    lines = [json.loads(line) for line in logged.getvalue().splitlines()]

    assert [line["event"] for line in lines[:3]] == ["audit_sealed", "audit_cut_off", "audit_sealed"]
    assert (lines[0]["seal"], lines[1]["seal"]) == (name, name)


# --- The command --------------------------------------------------------------------------------------------


@pytest.fixture
def cli(any_redis: Any) -> Callable[..., Result]:
    def call(*args: str) -> Result:
        desk = Surroundings({"EXECWORKER_REDIS_URL": any_redis.url}, any_redis.connect, ManualClock())
        return CliRunner().invoke(app, args, obj=desk)

    return call


def test_the_command_says_what_is_sound_and_exits_1_on_a_fault(
    client: Any, ids: list[str], cli: Callable[..., Result]
) -> None:
    sound = cli("audit", "verify")
    client.xdel(KEYS.audit, ids[6])
    broken = cli("audit", "verify", "--json")

    assert sound.exit_code == 0
    assert "route default: sound" in sound.stdout and "12 entries under 3 seals" in sound.stdout
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["fault"]["entry"] == ids[6]


@pytest.mark.parametrize("copy", ["foo:bar", "zzz", "1:51AC", "0" * 64, "0:" + "0" * 64, "1:" + "g" * 64, ""])
def test_a_copy_that_is_none_is_a_usage_error_that_shows_the_form(
    client: Any, ids: list[str], cli: Callable[..., Result], copy: str
) -> None:
    done = cli("audit", "verify", "--route", "default", "--against", copy)

    assert done.exit_code == 2
    assert "NUMBER:HASH" in done.output and "FAULT" not in done.output
    assert isinstance(done.exception, SystemExit)
