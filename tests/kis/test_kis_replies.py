"""What KIS answers is read as it is written, and what cannot be read says nothing."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from kis_bench import TAKEN

from worker.brokers.kis import CodeVerdict, Reply, code_table, parse_kis_place_response
from worker.brokers.kis.replies import AnswersSeen, read_reply
from worker.errors import OutcomeUnknown
from worker.redact import Redactor

AT = datetime(2026, 11, 23, 1, 0, 2, tzinfo=UTC)
DAY = date(2026, 11, 23)


def of(**fields: Any) -> Reply:
    return Reply(200, fields)


@pytest.mark.parametrize("verdict", list(CodeVerdict))
def test_an_answer_that_says_success_and_names_a_failure_proves_nothing(verdict: CodeVerdict) -> None:
    code = next(row.code for row in code_table().values() if row.verdict is verdict)

    with pytest.raises(OutcomeUnknown, match="may hold the order"):
        parse_kis_place_response(of(rt_cd="0", msg_cd=code, output=TAKEN["output"]), at=AT)


def test_success_that_names_no_order_says_so() -> None:
    with pytest.raises(OutcomeUnknown, match="names no order"):
        parse_kis_place_response(of(rt_cd="0", msg_cd="APBK0013"), at=AT)


def test_an_answer_is_told_with_how_it_begins_its_number_and_its_words() -> None:
    reply = Reply(
        200, {"rt_cd": "1", "msg_cd": " AB12 ", "msg1": "글 ", "output": {"odno": "7"}}, gt_uid="u1"
    )

    assert reply.told == "HTTP 200 rt_cd=1 msg_cd=AB12 odno=7 gt_uid=u1 글"
    assert reply.shown == "HTTP 200 AB12: 글, gt_uid u1"
    assert of().told == "HTTP 200 "
    assert of().shown == "HTTP 200 without a code: no text"


def test_what_an_answer_holds_and_what_it_was_signed_with_are_not_in_its_repr() -> None:
    shown = repr(Reply(200, {"access_token": "hush"}, redactor=Redactor()))

    assert "hush" not in shown and "redactor" not in shown
    assert Reply(200, {}, redactor=Redactor()) == Reply(200, {})


def test_long_words_of_a_broker_are_cut() -> None:
    reply = of(msg_cd="c" * 200, msg1="m" * 200)

    assert (reply.code, reply.message) == ("c" * 40, "m" * 120)


def test_a_call_for_tokens_names_its_errors_otherwise() -> None:
    reply = of(error_code="EGW00133", error_description="too soon")

    assert (reply.code, reply.message) == ("EGW00133", "too soon")


@pytest.mark.parametrize(
    ("found", "part"),
    [
        ({"A": "1"}, {"a": "1"}),
        ([{"A": "1"}, {"A": "2"}], {"a": "1"}),
        ([], {}),
        (["1"], {}),
        ("1", {}),
        (None, {}),
    ],
)
def test_an_inner_object_is_that_or_the_first_of_a_list(found: Any, part: dict[str, str]) -> None:
    assert of(output=found).part("output") == part


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        ([{"A": "1"}, {"B": " 2 "}], [{"a": "1"}, {"b": "2"}]),
        ([], []),
        ([{"A": "1"}, "2"], None),
        ({"A": "1"}, None),
        (None, None),
    ],
)
def test_rows_are_a_list_of_objects_and_nothing_else(found: Any, rows: Any) -> None:
    assert of(output=found).rows("output") == rows


@pytest.mark.parametrize(
    ("value", "cell"),
    [(" x ", "x"), (7, "7"), (None, ""), (1.5, "<float>"), ([], "<list>"), ({}, "<dict>"), ("\ud800", "?")],
)
def test_a_value_that_is_no_text_does_not_pass_for_none(value: Any, cell: str) -> None:
    assert of(output={"a": value}).part("output") == {"a": cell}


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (" x ", "x"), (1.5, ""), (None, ""), ([], "")])
def test_a_field_that_is_no_text_is_empty(value: Any, text: str) -> None:
    assert of(rt_cd=value).text("rt_cd") == text


def numbered(number: Any) -> Reply:
    return of(output={"ODNO": number})


def test_an_answer_is_new_once_and_again_on_another_day() -> None:
    seen = AnswersSeen()

    assert seen.is_new(numbered("0000000007"), DAY) is True
    assert seen.is_new(numbered("0000000007"), DAY) is False
    assert seen.is_new(numbered("0000000007"), date(2026, 11, 24)) is True


@pytest.mark.parametrize("number", ["", "0000000000", "12a", None, "12345678901"])
def test_an_answer_without_a_number_cannot_be_told_from_another(number: Any) -> None:
    seen = AnswersSeen()

    assert seen.is_new(numbered(number), DAY) is None
    assert seen.is_new(numbered(number), DAY) is None


def test_the_oldest_answers_are_forgotten() -> None:
    seen = AnswersSeen(size=2)
    for number in ("1", "2", "3"):
        seen.is_new(numbered(number), DAY)

    assert [seen.is_new(numbered(number), DAY) for number in ("3", "2", "1")] == [False, False, True]


def test_a_number_of_one_digit_or_of_ten_is_a_number() -> None:
    assert AnswersSeen().is_new(numbered("1"), DAY) is True
    assert AnswersSeen().is_new(numbered("9999999999"), DAY) is True


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"x"',
        b'{"rt_cd": "0"',
        b"[" * 100_000,
        b'{"rt_cd": "0", "RT_CD": "1"}',
        b"\xff",
    ],
)
def test_what_is_no_envelope_is_no_answer(body: bytes) -> None:
    assert read_reply(200, {}, body) is None


def test_an_envelope_is_read_with_what_its_headers_say() -> None:
    body = json.dumps({"RT_CD": "0", "rt_cd": "0"}).replace("}", ', "Output": {"odno": "7"}}').encode()

    reply = read_reply(500, {"tr_cont": " M ", "gt_uid": " u1 "}, body)

    assert reply is not None
    assert (reply.status, reply.tr_cont, reply.gt_uid) == (500, "M", "u1")
    assert reply.is_success
    assert reply.part("output") == {"odno": "7"}


def test_an_inner_value_that_is_given_twice_and_differently_is_neither() -> None:
    reply = read_reply(200, {}, b'{"rt_cd": "0", "output": {"ODNO": "7", "odno": "8"}}')

    assert reply is not None
    assert reply.part("output") == {"odno": "<object>"}
    with pytest.raises(OutcomeUnknown):
        parse_kis_place_response(reply, at=AT)
