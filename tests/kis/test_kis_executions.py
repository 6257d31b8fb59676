"""Frames of KIS's notices, and what their records say of an order: nothing that is not certain."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from notice_bench import IV, KEY, execution, frame, record, sealed, us_record

from contracts import OrderNotice, OrderStatus
from worker.brokers.kis.executions import Hearing, Untold, read_record
from worker.brokers.kis.frames import Answer, Frame, FrameFault, Ping, Seal, read_said

SEAL = Seal(KEY.encode(), IV.encode())
SEALS = {"H0STCNI0": SEAL, "H0GSCNI0": SEAL}
#: Ten in the morning of a Monday in Seoul.
MORNING = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
#: 22:00 of that Monday and 02:00 of the Tuesday in Seoul.
EVENING, NIGHT = datetime(2026, 11, 23, 13, 0, tzinfo=UTC), datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
NUMBER = "20261123-91252-0000117057"


class Ear:
    """Reads records one after the other."""

    def __init__(self) -> None:
        self.hearing = Hearing("1234567801")

    def __call__(self, at: datetime = MORNING, **changes: str) -> OrderNotice | None:
        return self._tell(record(**changes), at, is_us=False)

    def us(self, at: datetime, **changes: str) -> OrderNotice | None:
        changes = {"STCK_CNTG_HOUR": {EVENING: "220000", NIGHT: "020000"}[at]} | changes
        return self._tell(us_record(**changes), at, is_us=True)

    def _tell(self, fields: tuple[str, ...], at: datetime, *, is_us: bool) -> OrderNotice | None:
        found = read_record(fields, is_us=is_us)
        return self.hearing.tell(found, at) if found else None


@pytest.fixture
def ear() -> Ear:
    return Ear()


CANCEL = {"RCTF_CLS": "2", "ODER_NO": "0000117099", "OODER_NO": "0000117057"}


# --- Frames ---------------------------------------------------------------------------------------------------


def test_a_sealed_frame_is_opened_with_the_key_of_its_subscription() -> None:
    assert read_said(frame(record()), SEALS) == Frame("H0STCNI0", (record(),))


def test_a_frame_may_have_several_records() -> None:
    first, second = record(), record(ODER_NO="0000117058", **execution(3, "71000"))

    said = read_said(frame(first, second), SEALS)

    assert isinstance(said, Frame)
    assert said.records == (first, second)


def test_a_frame_that_is_not_sealed_is_read_too() -> None:
    said = read_said("0|H0STCNI0|001|" + "^".join(record()), SEALS)

    assert said == Frame("H0STCNI0", (record(),))


def test_a_sign_of_life_is_kept_as_it_came() -> None:
    text = '{"header": {"tr_id":"PINGPONG","datetime":"20261123100000"} }'

    assert read_said(text, {}) == Ping(text)


def test_the_answer_to_a_subscription_brings_the_seal_and_no_text_shows_it() -> None:
    text = (
        '{"header":{"tr_id":"H0STCNI0","tr_key":"me","encrypt":"Y"},"body":{"rt_cd":"0","msg_cd":"OPSP0000",'
        f'"msg1":"SUBSCRIBE SUCCESS","output":{{"iv":"{IV}","key":"{KEY}"}}}}}}'
    )

    said = read_said(text, {})

    assert said == Answer("H0STCNI0", True, "OPSP0000", SEAL)
    assert KEY not in repr(said)
    assert IV not in repr(said)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no frame at all",
        "1|H0STCNI0|001",
        "2|H0STCNI0|001|x",
        f"1|H0STCNI0|many|{sealed('a^b')}",
        f"1|H0STCNI0|000|{sealed('a^b')}",
        "1|H0STCNI9|001|" + sealed("^".join(record())),
        "1|H0STCNI0|001|this is no base64",
        "1|H0STCNI0|001|" + sealed("^".join(record()))[:-8],
        "1|H0STCNI0|001|" + sealed("^".join(record()), key="another key, of 32 letters as is"),
        "1|H0STCNI0|002|" + sealed("^".join(record())[:-1] + "^^"),
        # Two records counted as one: the second would be lost.
        "1|H0STCNI0|001|" + sealed("^".join(record() + record())),
        "{not json",
        "[1]{",
        '{"header":{}}',
        '{"header":{"tr_id":"H0STCNI0"},"body":null}',
        '{"header":{"tr_id":"H0STCNI0"}}',
        "{" * 3000,
    ],
)
def test_what_cannot_be_read_is_said_to_be_so_without_its_content(text: str) -> None:
    with pytest.raises(FrameFault) as found:
        read_said(text, SEALS)

    assert "1234567801" not in str(found.value)
    assert text == "" or text not in str(found.value)


# --- Records --------------------------------------------------------------------------------------------------


def test_a_received_order_works(ear: Ear) -> None:
    assert ear() == OrderNotice(NUMBER, "005930", OrderStatus.WORKING, quantity=Decimal(10))
    assert ear(ACPT_YN="2") == OrderNotice(NUMBER, "005930", OrderStatus.WORKING, quantity=Decimal(10))


def test_an_execution_tells_its_own_shares_and_price_only(ear: Ear) -> None:
    ear()

    told = [ear(**execution(4, "71000")), ear(**execution(6, "0000070900"))]

    assert told == [
        OrderNotice(
            NUMBER, "005930", OrderStatus.PARTIALLY_FILLED, Decimal(10), Decimal(4), price=Decimal(71_000)
        ),
        OrderNotice(
            NUMBER, "005930", OrderStatus.PARTIALLY_FILLED, Decimal(10), Decimal(6), price=Decimal(70_900)
        ),
    ]


def test_two_executions_that_are_the_same_in_all_are_counted_once_and_left_to_the_list(ear: Ear) -> None:
    ear()
    ear(**execution(4, "71000"))

    with pytest.raises(Untold):
        ear(**execution(4, "71000"))
    later = ear(**execution(4, "71000"), STCK_CNTG_HOUR="100001")

    assert later is not None
    assert later.filled_quantity == 4


def test_a_cancel_that_is_only_received_says_nothing_yet(ear: Ear) -> None:
    ear()

    assert ear(**CANCEL) is None


def test_a_confirmed_cancel_ends_the_order_that_it_was_about(ear: Ear) -> None:
    ear()
    ear(**execution(4, "71000"))

    told = ear(**CANCEL, ACPT_YN="2", CNTG_QTY="6", ODER_QTY="6")

    assert told == OrderNotice(NUMBER, "005930", OrderStatus.CANCELLED, quantity=Decimal(10))


def test_a_cancel_of_a_part_does_not_end_its_order(ear: Ear) -> None:
    ear()

    with pytest.raises(Untold):
        ear(**CANCEL, ACPT_YN="2", CNTG_QTY="6", ODER_QTY="6")
    rest = ear(**CANCEL, ACPT_YN="2", CNTG_QTY="4", ODER_QTY="4")

    assert rest is not None
    assert rest.status is OrderStatus.CANCELLED


def test_a_cancel_of_an_order_that_was_not_heard_of_is_left_to_the_list(ear: Ear) -> None:
    with pytest.raises(Untold):
        ear(**CANCEL, ACPT_YN="2")


def test_a_refused_order_is_refused(ear: Ear) -> None:
    ear()

    assert ear(RFUS_YN="1") == OrderNotice(NUMBER, "005930", OrderStatus.REFUSED, quantity=Decimal(10))


@pytest.mark.parametrize("request_kind", ["1", "2"])
def test_a_refused_request_to_change_an_order_says_nothing_of_any(ear: Ear, request_kind: str) -> None:
    ear()

    assert ear(**CANCEL | {"RCTF_CLS": request_kind}, RFUS_YN="1", ACPT_YN="2") is None


def test_the_rest_of_an_ioc_order_is_cancelled_under_its_own_number(ear: Ear) -> None:
    told = ear(ACPT_YN="3", ODER_COND="1", CNTG_QTY="7")

    assert told == OrderNotice(NUMBER, "005930", OrderStatus.CANCELLED, quantity=Decimal(10))


def test_a_modification_is_an_order_of_its_own_and_says_nothing_of_the_other(ear: Ear) -> None:
    ear()

    told = ear(ODER_NO="0000117060", OODER_NO="0000117057", RCTF_CLS="1")

    assert told is not None
    assert (told.broker_order_id, told.status) == ("20261123-91252-0000117060", OrderStatus.WORKING)


def test_another_account_of_the_same_customer_is_not_heard(ear: Ear) -> None:
    assert ear(ACNT_NO="8765432101") is None
    assert ear(ACNT_NO="8765432101", **execution(4, "71000")) is None


def test_a_number_without_its_zeros_is_the_same_number(ear: Ear) -> None:
    told = ear(ODER_NO="117057")

    assert told is not None
    assert told.broker_order_id == NUMBER


def test_a_second_receipt_of_one_order_forgets_nothing_of_the_first(ear: Ear) -> None:
    ear()
    ear(**execution(4, "71000"))
    ear()

    told = ear(**CANCEL, ACPT_YN="2", CNTG_QTY="6", ODER_QTY="6")

    assert told is not None
    assert told.status is OrderStatus.CANCELLED


def test_yesterdays_number_is_a_new_order_today(ear: Ear) -> None:
    tuesday = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
    ear(ODER_QTY="10")
    ear(**execution(10, "71000"))

    told = [ear(tuesday, ODER_QTY="5"), ear(tuesday, **execution(1, "71000"))]
    with pytest.raises(Untold):
        ear(tuesday, **CANCEL, ACPT_YN="2", CNTG_QTY="2")

    assert [each.broker_order_id for each in told if each] == ["20261124-91252-0000117057"] * 2


@pytest.mark.parametrize("size", [17, 23, 26, 30])
def test_fields_behind_those_that_are_read_may_be_more_or_fewer(size: int) -> None:
    fields = (record() + ("?",) * 10)[:size]

    found = read_record(fields, is_us=False)

    assert found is not None
    assert (found.number, found.symbol, found.quantity) == ("0000117057", "005930", Decimal(10))


@pytest.mark.parametrize("size", [19, 21, 25, 28])
def test_fields_behind_those_that_are_read_may_be_more_or_fewer_in_the_us(size: int) -> None:
    found = read_record((us_record() + ("?",) * 10)[:size], is_us=True)

    assert found is not None
    assert (found.number, found.symbol) == ("0000117057", "AAPL")


@pytest.mark.parametrize(
    "changes",
    [
        {"ODER_NO": ""},
        {"ODER_NO": "0000000000"},
        {"ODER_NO": "12-4"},
        {"BRNC_NO": "nowhere"},
        {"STCK_SHRN_ISCD": " "},
        {"RCTF_CLS": "3"},
        {"RFUS_YN": "Y"},
        {"CNTG_YN": ""},
        {"ACPT_YN": "9"},
        {"CNTG_QTY": "-1"},
        {"CNTG_QTY": "NaN"},
        {"CNTG_UNPR": "71,000"},
        {"CNTG_UNPR": "71000.5"},
        {"ODER_QTY": "٣"},
        execution(0, "71000"),
        execution(1, "0"),
    ],
)
def test_a_record_with_a_word_that_nobody_knows_says_nothing(ear: Ear, changes: dict[str, str]) -> None:
    with pytest.raises(FrameFault):
        ear(**changes)


def test_a_record_that_is_too_short_says_nothing() -> None:
    with pytest.raises(FrameFault):
        read_record(record()[:16], is_us=False)
    with pytest.raises(FrameFault):
        read_record(us_record()[:18], is_us=True)


# --- US orders ------------------------------------------------------------------------------------------------


def test_a_us_price_has_four_decimals_and_no_point(ear: Ear) -> None:
    ear.us(EVENING)

    told = ear.us(EVENING, **execution(4, "2315050"), ODER_QTY="10")

    assert told == OrderNotice(
        NUMBER, "AAPL", OrderStatus.PARTIALLY_FILLED, Decimal(10), Decimal(4), price=Decimal("231.505")
    )
    assert str(told.price) == "231.505"


def test_a_us_order_of_the_evening_keeps_its_date_after_midnight(ear: Ear) -> None:
    ear.us(EVENING)

    told = [ear.us(NIGHT, **execution(4, "2315050"))]
    told.append(ear.us(NIGHT, **CANCEL, ACPT_YN="2", CNTG_QTY="6"))

    assert [(each.broker_order_id, each.status) for each in told if each] == [
        (NUMBER, OrderStatus.PARTIALLY_FILLED),
        (NUMBER, OrderStatus.CANCELLED),
    ]


def test_a_us_order_of_the_night_has_the_date_of_the_night(ear: Ear) -> None:
    told = [ear.us(NIGHT), ear.us(NIGHT, **execution(4, "2315050"))]

    assert [each.broker_order_id for each in told if each] == ["20261124-91252-0000117057"] * 2


def test_an_execution_after_midnight_of_an_order_not_heard_of_is_left_to_the_list(ear: Ear) -> None:
    for changes in (execution(4, "2315050"), {"RFUS_YN": "1"}, {"ACPT_YN": "2"}):
        with pytest.raises(Untold):
            ear.us(NIGHT, **changes)


def test_an_execution_before_midnight_is_of_that_date_whether_or_not_its_order_was_heard_of(ear: Ear) -> None:
    told = ear.us(EVENING, **execution(4, "2315050"))

    assert told is not None
    assert told.broker_order_id == NUMBER


def test_two_us_orders_of_one_night_with_one_number_are_not_taken_for_each_other(ear: Ear) -> None:
    ear.us(EVENING)
    again = ear.us(NIGHT)

    assert again is not None
    assert again.broker_order_id == "20261124-91252-0000117057"
    with pytest.raises(Untold):
        ear.us(NIGHT, **execution(4, "2315050"))


def test_a_number_is_free_again_once_its_us_order_is_done(ear: Ear) -> None:
    ear.us(EVENING)
    ear.us(EVENING, **execution(10, "2315050"))
    ear.us(NIGHT)

    told = ear.us(NIGHT, **execution(4, "2315050"))

    assert told is not None
    assert told.broker_order_id == "20261124-91252-0000117057"


def test_stocks_of_other_countries_are_not_heard_and_unknown_markets_not_guessed(ear: Ear) -> None:
    assert ear.us(EVENING, ODER_COND="D") is None
    with pytest.raises(FrameFault):
        ear.us(EVENING, ODER_COND="Z")
