"""Orders at the simulated exchange: taking, trading, cancelling, expiring, and what the lists say of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contracts import Side
from tests.simulate.broker import HIGH, LOW, MORNING, Broker, a_simulator, code_of, number_of
from worker.clock import ManualClock
from worker.simulate.exchange import Mishap
from worker.simulate.orders import What


def test_an_order_that_is_taken_has_a_number_and_stands_in_the_list_of_the_day() -> None:
    broker = Broker(a_simulator())

    reply = broker.buy()

    assert reply.body["msg_cd"] == "APBK0013"
    assert reply.body["output"] == {
        "KRX_FWDG_ORD_ORGNO": "91252",
        "ODNO": "0000000001",
        "ORD_TMD": "100000",
        "SOR_ODNO": "",
    }
    (row,) = broker.daily()
    assert (row["odno"], row["ord_qty"], row["rmn_qty"], row["ord_unpr"]) == (
        "0000000001",
        "10",
        "10",
        "60000",
    )
    assert (row["ord_dt"], row["ord_tmd"], row["sll_buy_dvsn_cd"]) == ("20261123", "100000", "02")


def test_the_same_order_twice_is_two_orders() -> None:
    broker = Broker(a_simulator())

    numbers = [number_of(broker.buy()) for _ in range(2)]

    assert numbers == ["0000000001", "0000000002"]


def test_a_buy_above_the_market_trades_at_the_market_and_moves_money_and_shares() -> None:
    simulator = a_simulator(holdings={}, depth=10_000)
    broker = Broker(simulator)

    broker.buy(ORD_UNPR=HIGH)

    (order,) = simulator.orders()
    assert order.filled == 10
    assert order.amount < HIGH * 10
    (held,) = broker.balance().body["output1"]
    (money,) = broker.balance().body["output2"]
    assert (held["pdno"], held["hldg_qty"], held["thdt_buyqty"]) == ("005930", "10", "10")
    assert money["dnca_tot_amt"] == money["nxdy_excc_amt"] == "1000000000"
    assert money["prvs_rcdl_excc_amt"] == str(1_000_000_000 - int(order.amount))


def test_a_large_order_trades_piece_by_piece_as_the_market_has_room() -> None:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock, depth=20)
    broker = Broker(simulator)

    number = number_of(broker.buy(ORD_QTY=100, ORD_UNPR=HIGH))
    seen = []
    for _ in range(12):
        (row,) = broker.daily(ODNO=number)
        seen.append(int(row["tot_ccld_qty"]))
        clock.advance(1)

    assert 0 < seen[0] < 100
    assert seen == sorted(seen)
    assert seen[-1] == 100


def test_two_orders_share_what_one_second_of_the_market_holds() -> None:
    simulator = a_simulator(depth=20)
    broker = Broker(simulator)

    for _ in range(2):
        broker.buy(ORD_QTY=1_000, ORD_UNPR=HIGH)

    first, second = simulator.orders()
    assert 10 <= first.filled <= 30
    assert second.filled == 0


def test_an_ioc_gives_back_what_does_not_trade_at_once() -> None:
    simulator = a_simulator(depth=20)

    Broker(simulator).buy(ORD_DVSN="11", ORD_QTY=100, ORD_UNPR=HIGH)

    (order,) = simulator.orders()
    assert order.filled + order.count(What.CANCELLED) == 100
    assert order.filled > 0
    assert order.remaining == 0


def test_a_fok_that_cannot_trade_whole_does_not_trade() -> None:
    simulator = a_simulator(depth=20)

    Broker(simulator).buy(ORD_DVSN="12", ORD_QTY=100, ORD_UNPR=HIGH)

    (order,) = simulator.orders()
    assert (order.filled, order.count(What.CANCELLED)) == (0, 100)


def test_a_cancel_is_a_row_of_its_own_and_ends_the_original() -> None:
    broker = Broker(a_simulator())
    number = number_of(broker.buy())

    cancel = number_of(broker.change(number))

    newest, original = broker.daily()
    assert (newest["odno"], newest["orgn_odno"], newest["rmn_qty"]) == (cancel, number, "0")
    assert (original["cncl_yn"], original["cncl_cfrm_qty"], original["rmn_qty"]) == ("Y", "10", "0")


def test_a_part_can_be_cancelled_and_the_rest_goes_on() -> None:
    simulator = a_simulator()
    broker = Broker(simulator)
    number = number_of(broker.buy())

    broker.change(number, QTY_ALL_ORD_YN="N", ORD_QTY=4)

    assert simulator.orders()[0].remaining == 6


def test_a_modification_is_the_live_order_from_then_on() -> None:
    simulator = a_simulator()
    broker = Broker(simulator)
    number = number_of(broker.buy())

    new = number_of(broker.change(number, "01", ORD_UNPR=LOW + 100))

    assert code_of(broker.change(number)) == "APBK0927"
    assert number_of(broker.change(new))
    old, changed, _ = simulator.orders()
    assert (old.remaining, old.count(What.MOVED)) == (0, 10)
    assert (changed.original, changed.price, changed.remaining) == (number, LOW + 100, 0)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"EXCG_ID_DVSN_CD": "SOR"}, "APBK0344"),
        ({"ORGN_ODNO": "0000000099"}, "APBK0344"),
        ({"KRX_FWDG_ORD_ORGNO": "00001"}, "APBK0344"),
        ({"CANO": "87654321"}, "APBK0344"),
        ({"QTY_ALL_ORD_YN": "N", "ORD_QTY": 11}, "APBK0927"),
    ],
    ids=["another exchange", "another number", "another branch", "another account", "more than is left"],
)
def test_a_cancel_of_what_is_not_there_is_refused(changes: dict[str, str], code: str) -> None:
    broker = Broker(a_simulator())
    number = number_of(broker.buy())

    assert code_of(broker.change(number, **changes)) == code


def test_a_cancel_before_the_exchange_has_the_order_is_too_early() -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock, exchange_lag=2))
    number = number_of(broker.buy())

    early = broker.change(number)
    clock.advance(3)
    late = broker.change(number)

    assert early.body["msg1"] == "거래소 미접수 주문입니다."
    assert number_of(late)


def test_what_is_left_expires_with_the_session_and_gives_its_money_back() -> None:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock)
    broker = Broker(simulator)
    broker.buy()

    clock.advance(6 * 3600)

    (order,) = simulator.orders()
    assert order.count(What.EXPIRED) == 10
    assert simulator.exchange.account(order.account).held_cash["KRW"] == 0
    (row,) = broker.daily()
    assert (row["rmn_qty"], row["cncl_yn"]) == ("10", "N")


def test_an_order_in_the_closing_auction_trades_when_it_ends() -> None:
    clock = ManualClock(datetime(2026, 11, 23, 6, 25, tzinfo=UTC))
    simulator = a_simulator(clock, depth=10_000)
    Broker(simulator).buy(ORD_UNPR=HIGH)
    waiting = simulator.orders()[0].filled

    clock.advance(301)

    assert waiting == 0
    assert simulator.orders()[0].filled == 10


def test_numbers_start_again_every_day() -> None:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock)
    first = number_of(Broker(simulator).buy())

    clock.advance(86_400)

    assert number_of(Broker(simulator).buy()) == first
    assert len(simulator.orders()) == 2


def test_lists_learn_of_everything_late() -> None:
    clock = ManualClock(MORNING)
    broker = Broker(a_simulator(clock, visibility_lag=3, depth=10_000))
    number = number_of(broker.buy())
    assert broker.daily() == []

    clock.advance(3)
    (placed,) = broker.daily()
    broker.change(number)
    (unaware,) = broker.daily()
    clock.advance(3)

    assert placed["rmn_qty"] == unaware["rmn_qty"] == "10"
    assert [row["rmn_qty"] for row in broker.daily()] == ["0", "0"]


def test_the_same_seed_makes_the_same_market() -> None:
    def prices(seed: int) -> list[str]:
        clock = ManualClock(MORNING)
        simulator = a_simulator(clock, seed=seed)
        found = []
        for _ in range(50):
            found.append(str(simulator.exchange.quote_price("005930")))
            clock.advance(60)
        return found

    assert prices(1) == prices(1)
    assert prices(1) != prices(2)
    assert len(set(prices(1))) > 5


@pytest.mark.parametrize("side", Side)
def test_money_and_shares_are_neither_made_nor_lost(side: Side) -> None:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock, depth=30)
    broker = Broker(simulator)
    act = broker.buy if side is Side.BUY else broker.sell
    for step in range(30):
        act(ORD_QTY=step + 1, ORD_UNPR=70_000 + 100 * (step % 15))
        if step % 4 == 0 and simulator.exchange.book.live:
            broker.change(next(iter(simulator.exchange.book.live.values())).number)
        clock.advance(1)

    orders = simulator.orders()
    account = simulator.exchange.account("1234567801")
    way = 1 if side is Side.BUY else -1
    traded = sum(one.filled for one in orders)
    assert traded > 0
    assert account.positions["005930"].quantity == 1_000 + way * traded
    assert account.cash["KRW"] == 1_000_000_000 - way * sum(one.amount for one in orders)
    still_held = sum(one.remaining * one.hold for one in orders)
    assert account.held_cash["KRW"] == still_held
    assert account.held_shares["005930"] == (0 if side is Side.BUY else sum(one.remaining for one in orders))


def test_an_order_the_exchange_refuses_was_taken_before() -> None:
    clock = ManualClock(MORNING)
    simulator = a_simulator(clock)
    broker = Broker(simulator)

    reply = broker.buy(Mishap(refused_after=2), ORD_UNPR=HIGH)
    (taken,) = broker.daily()
    clock.advance(2)

    assert number_of(reply) == taken["odno"]
    assert taken["rjct_qty"] == "0"
    (row,) = broker.daily()
    assert (row["rjct_qty"], row["tot_ccld_qty"], row["rmn_qty"]) == ("10", "0", "0")
    assert simulator.exchange.account("1234567801").held_cash["KRW"] == 0


def test_a_jump_of_the_clock_lets_happen_what_happened_in_between() -> None:
    slow, fast = ManualClock(MORNING), ManualClock(MORNING)
    simulators = [a_simulator(slow, depth=5), a_simulator(fast, depth=5)]
    for simulator in simulators:
        Broker(simulator).buy(ORD_QTY=200, ORD_UNPR=71_300)

    for _ in range(600):
        slow.advance(1)
        simulators[0].exchange.advance()
    fast.advance(600)

    one, other = (simulator.orders()[0] for simulator in simulators)
    assert one.filled == other.filled > 0
    assert one.placed_at + timedelta(seconds=1) < other.changes[-1].at
