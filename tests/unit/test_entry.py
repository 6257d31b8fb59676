"""Entries as fields, as ids that sort, and as messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.transport import padded
from worker.transport.entry import StreamMessage, fields_of, tag_of
from worker.transport.options import Options
from worker.transport.source import by_queue

ids = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(ids, ids)
def test_padded_ids_sort_as_the_entries_do(one: tuple[int, int], other: tuple[int, int]) -> None:
    texts = [padded(f"{ms}-{seq}") for ms, seq in (one, other)]

    assert (texts[0] < texts[1]) == (one < other)
    assert len(texts[0]) == len(texts[1])


def test_a_plain_json_message_is_one_field() -> None:
    properties = {"delivery_mode": 2, "priority": 0, "delivery_info": {}, "reply_to": None}

    assert fields_of("{}", "application/json", "utf-8", {}, properties) == {"body": "{}"}


def test_what_is_not_plain_json_says_so() -> None:
    fields = fields_of(
        b"\0", "application/data", "binary", {"traceparent": "00-1", "n": 3}, {"reply_to": "r"}
    )

    assert fields == {
        "body": b"\0",
        "content-type": "application/data",
        "content-encoding": "binary",
        "traceparent": "00-1",
        "n": "3",
        "properties": '{"reply_to": "r"}',
    }


def test_a_header_cannot_take_the_place_of_the_payload() -> None:
    with pytest.raises(ValueError, match="rename the header"):
        fields_of("{}", headers={"body": "other"})


def test_a_message_brings_its_headers_and_properties_back() -> None:
    fields = fields_of('{"a": 1}', "application/json", "utf-8", {"traceparent": "00-1"}, {"reply_to": "r"})

    message = StreamMessage(None, "q", "1-0", _flat(fields), 3)

    assert message.payload == {"a": 1}
    assert message.headers == {"traceparent": "00-1"}
    assert message.properties == {"reply_to": "r"}
    assert message.delivery_info["delivery_count"] == 3
    assert message.delivery_info["redelivered"] is True


def test_an_entry_without_a_body_is_delivered_with_its_fault() -> None:
    message = StreamMessage(None, "q", "1-0", [b"data", b"x\xff", b"content-type", b"text/plain"], 1)

    assert message.delivery_info["fault"] == "the entry has no field 'body'"
    assert message.payload == {"data": "x\\xff", "content-type": "text/plain"}


def test_properties_that_are_no_json_do_no_harm() -> None:
    for text in (b"[not json", b"1", b"[" * 100_000):
        message = StreamMessage(None, "q", "1-0", [b"body", b"{}", b"properties", text], 1)

        assert message.properties == {}


@pytest.mark.parametrize("compression", [b"gzip", b"no such thing", b"\xff"])
def test_what_cannot_be_unpacked_becomes_a_message_that_says_so(compression: bytes) -> None:
    message = StreamMessage(None, "q", "1-0", [b"body", b"x", b"compression", compression], 1)

    assert message.errors
    assert message.body == b"x"


@given(st.text(min_size=1), ids)
def test_a_tag_leads_back_to_its_entry_whatever_the_queue_is_called(
    queue: str, entry: tuple[int, int]
) -> None:
    entry_id = f"{entry[0]}-{entry[1]}"

    assert by_queue([tag_of(entry_id, queue)]) == {queue: [entry_id]}


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"batch": 1001}, {"min_idle": 0}])
def test_options_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options.of(wrong)


def test_options_of_other_transports_are_left_alone() -> None:
    assert Options.of({"visibility_timeout": 5, "min_idle": 3}).min_idle == 3


def _flat(fields: dict[str, str | bytes]) -> list[bytes]:
    return [item.encode() if isinstance(item, str) else item for pair in fields.items() for item in pair]
