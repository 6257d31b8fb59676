"""The code table: each code proves what its row says, and a code without a row proves nothing."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from typing import Any

import pytest
from kis_bench import TAKEN

from contracts import SafetyCode
from worker.brokers.kis import (
    CodeRow,
    CodeVerdict,
    Reply,
    code_table,
    map_broker_error_to_safety,
    parse_kis_place_response,
)
from worker.errors import BrokerError, NotSent, OutcomeUnknown, Rejected

AT = datetime(2026, 11, 23, 1, 0, 2, tzinfo=UTC)
ERRORS: dict[CodeVerdict, type[BrokerError]] = {
    CodeVerdict.REJECTED: Rejected,
    CodeVerdict.NOT_SENT: NotSent,
    CodeVerdict.IN_DOUBT: OutcomeUnknown,
}
#: The portal's own words, captures and caution: after these KIS may hold the order.
MAYBE = {"EGW00301", "EGW00302", "IGW00009", "OPSQ0009", "EGW00215", "EGW00001", "EGW00002"}
MAYBE |= {"EGW00202", "EGW00203", "EGW00300", "90020000"}
#: The gateway turned these away before any order system saw them.
NEVER_LOOKED_AT = {"EGW00121", "EGW00122", "EGW00123", "EGW00133", "EGW00201"}


def reply(code: str | None, rt_cd: str = "1", status: int = 200, **fields: Any) -> Reply:
    body: dict[str, Any] = {"rt_cd": rt_cd, "msg_cd": code, "msg1": "글"}
    return Reply(status, body | fields)


@pytest.mark.parametrize("row", code_table().values(), ids=lambda row: row.code)
@pytest.mark.parametrize("status", [200, 500])
def test_a_listed_code_ends_an_order_as_its_row_says_whatever_the_http_status(
    row: CodeRow, status: int
) -> None:
    with pytest.raises(BrokerError) as raised:
        parse_kis_place_response(reply(row.code, status=status), at=AT)

    assert type(raised.value) is ERRORS[row.verdict]
    assert (raised.value.code, raised.value.safety_code) == (row.code, row.safety)
    assert row.code in raised.value.message


@pytest.mark.parametrize("row", code_table().values(), ids=lambda row: row.code)
def test_a_row_is_dated_and_has_a_source_and_korean_words(row: CodeRow) -> None:
    assert date(2026, 1, 1) <= row.date
    assert row.source in {"portal", "capture", "1src", "caution"}
    assert row.korean
    assert len(row.code) == 8
    assert map_broker_error_to_safety(row.code) is row.safety


@pytest.mark.parametrize("code", sorted(MAYBE))
def test_what_may_have_arrived_is_never_called_a_refusal(code: str) -> None:
    assert code_table()[code].verdict is CodeVerdict.IN_DOUBT


def test_only_codes_that_precede_every_order_system_may_be_launched_again() -> None:
    assert {
        row.code for row in code_table().values() if row.verdict is CodeVerdict.NOT_SENT
    } == NEVER_LOOKED_AT


@pytest.mark.parametrize("code", ["APBK9999", "EGW99999", None, ""])
def test_an_unlisted_code_leaves_the_order_in_doubt_and_is_shouted_about(
    code: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(OutcomeUnknown) as raised:
        parse_kis_place_response(reply(code, "7"), at=AT)

    assert "not on our list" in raised.value.message
    assert raised.value.safety_code is SafetyCode.FS042
    assert "kis_code_unlisted" in caplog.text


def test_success_is_rt_cd_0_and_a_number() -> None:
    found = parse_kis_place_response(Reply(200, TAKEN), at=AT, reference="KRX/00/10")

    assert found.broker_order_id == "20261123-91252-0000117057"
    assert (found.broker_code, found.reference) == ("APBK0013", "KRX/00/10")


@pytest.mark.parametrize("number", ["", "0", "0000000000", "??", None])
def test_success_without_a_number_is_in_doubt(number: str | None) -> None:
    with pytest.raises(OutcomeUnknown):
        parse_kis_place_response(reply("APBK0013", "0", output={"ODNO": number}), at=AT)


@pytest.mark.parametrize("output", [None, [], "x", {}])
def test_success_without_an_output_is_in_doubt(output: Any) -> None:
    with pytest.raises(OutcomeUnknown):
        parse_kis_place_response(reply("APBK0013", "0", output=output), at=AT)


def test_the_response_that_could_not_be_built_is_in_doubt_though_it_says_success() -> None:
    with pytest.raises(OutcomeUnknown) as raised:
        parse_kis_place_response(reply("IGW00009", "0", 500, output=TAKEN["output"]), at=AT)

    assert raised.value.code == "IGW00009"


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_an_answer_is_read_in_either_case(case: Any) -> None:
    output = {case(name): value for name, value in TAKEN["output"].items()}  # type: ignore[attr-defined]

    found = parse_kis_place_response(reply("APBK0013", "0", output=output), at=AT)

    assert found.broker_order_id.endswith("-0000117057")


@pytest.mark.parametrize(
    ("at", "tmd", "day"),
    [
        (datetime(2026, 11, 23, 15, 0, 1, tzinfo=UTC), "235959", "20261123"),  # 00:00:01 of the 24th in Seoul
        (datetime(2026, 11, 23, 14, 59, 59, tzinfo=UTC), "000001", "20261124"),
        (datetime(2026, 11, 23, 1, 0, 0, tzinfo=UTC), "", "20261123"),
    ],
)
def test_an_order_taken_at_midnight_has_the_date_of_its_receipt(at: datetime, tmd: str, day: str) -> None:
    output = {"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": "7", "ORD_TMD": tmd}

    found = parse_kis_place_response(reply("APBK0013", "0", output=output), at=at)

    assert found.broker_order_id == f"{day}-91252-0000000007"
