"""
KIS's codes as this server gives them, as of autumn 2026.

``[?]`` marks a code or a text that no source shows; everything else was seen in captures or in the portal's FAQ.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.simulate.rules import Reason


@dataclass(frozen=True, slots=True)
class Code:
    code: str
    message: str
    status: int = 200
    #: ``1`` gateway and paper, ``7`` ledger.
    rt_cd: str = "1"


def _gateway(code: str, message: str) -> Code:
    return Code(code, message, 500)


#: Refusals of the gateway and the relay behind it, by code: portal FAQ.
GATEWAY = {
    one.code: one
    for one in (
        _gateway("EGW00001", "일시적 오류가 발생했습니다."),
        _gateway("EGW00002", "서버 에러가 발생했습니다."),
        _gateway("EGW00102", "AppKey는 필수입니다."),
        _gateway("EGW00103", "유효하지 않은 AppKey입니다."),
        _gateway("EGW00104", "AppSecret은 필수입니다."),
        _gateway("EGW00105", "유효하지 않은 AppSecret입니다."),
        _gateway("EGW00121", "유효하지 않은 token 입니다."),
        _gateway("EGW00122", "token을 찾을 수 없습니다."),
        _gateway("EGW00123", "기간이 만료된 token 입니다."),
        _gateway("EGW00131", "유효하지 않은 hashkey입니다."),
        _gateway("EGW00132", "Content-Type이 유효하지 않습니다."),
        _gateway("EGW00201", "초당 거래건수를 초과하였습니다."),
        _gateway("EGW00202", "GW라우팅 중 오류가 발생했습니다."),
        _gateway("EGW00203", "OPS라우팅 중 오류가 발생했습니다."),
        _gateway("EGW00208", "유효하지 않은 custtype입니다."),
        _gateway("EGW00215", "원장에서 허용 가능한 초당 거래건수를 초과하였습니다."),
        _gateway("EGW00300", "Gateway 라우팅 오류가 발생했습니다."),
        _gateway("EGW00301", "연결 시간이 초과하였습니다. 직전 거래를 반드시 확인하세요."),
        _gateway("EGW00302", "거래시간이 초과하였습니다. 직전 거래를 반드시 확인하세요."),
        _gateway("EGW00310", "TR-ID가 유효하지 않습니다."),
        _gateway("EGW02006", "모의투자 TR 이 아닙니다."),
        _gateway("IGW00007", "MCA 전문바디 구성 중 오류가 발생하였습니다."),
        # The order is on the book: seen with rt_cd 0 in a capture.
        Code("IGW00009", "응답전문 구성 중 오류가 발생하였습니다.", 500, "0"),
        _gateway("OPSQ2000", "ERROR : INPUT INVALID_CHECK_ACNO"),
    )
}


def _ledger(code: str, message: str) -> Code:
    return Code(code, message, 200, "7")


#: Refusals of the real server.
REAL = {
    Reason.SYMBOL: _ledger("APBK0656", "해당 종목정보가 없습니다."),
    Reason.NOT_A_BUSINESS_DAY: _ledger("APBK0919", "장운영일자가 주문일과 상이합니다."),
    Reason.BEFORE_OPEN: _ledger("APBK0918", "장운영시간이 아닙니다.(주문불가)"),
    Reason.HOURS: _ledger("APBK0918", "장운영시간이 아닙니다.(주문불가)"),
    Reason.AFTER_MARKET_TYPE: _ledger(
        "APBK3013", "[애프터마켓] 지정가 및 최유리/최우선지정가 주문만 가능합니다."
    ),
    Reason.VENUE_TYPE: _ledger("APBK1943", "시장가호가불가로 주문이 불가합니다."),
    Reason.TICK: _ledger("APBK0506", "주식주문호가단위 오류입니다."),
    # One source; the code of the lower limit [?].
    Reason.UPPER_LIMIT: _ledger("APBK0406", "주문가격이 상한가를 초과합니다."),
    Reason.LOWER_LIMIT: _ledger("APBK0407", "주문가격이 하한가에 미달합니다."),
    Reason.CASH: _ledger("APBK0952", "주문가능금액을 초과 했습니다."),
    Reason.SHARES: _ledger("APBK0400", "주문 가능한 수량을 초과했습니다."),
    Reason.NO_SHARES: _ledger("APBK0400", "주문 가능한 수량을 초과했습니다."),
    Reason.NO_ORDER: _ledger("APBK0344", "원주문정보가 존재하지 않습니다."),
    Reason.NOTHING_LEFT: _ledger("APBK0927", "정정/취소 가능한 수량이 없습니다."),
    # The words were seen, the code was not [?].
    Reason.TOO_EARLY: _ledger("APBK0917", "거래소 미접수 주문입니다."),
}
#: The real server has a code of its own for overseas markets that are closed.
REAL_OVERSEAS = REAL | dict.fromkeys(
    (Reason.BEFORE_OPEN, Reason.HOURS, Reason.NOT_A_BUSINESS_DAY),
    _ledger("APBK1664", "장이 열리지 않았습니다."),
)
#: Refusals of the paper server. It shortens the reasons to fewer codes.
PAPER = {
    # The text was seen, the code was not [?].
    Reason.SYMBOL: Code("40070000", "모의투자 주문처리가 안되었습니다(매매불가 종목)"),
    Reason.NOT_A_BUSINESS_DAY: Code("40100000", "모의투자 영업일이 아닙니다."),
    Reason.BEFORE_OPEN: Code("40570000", "모의투자 장시작전 입니다."),
    Reason.HOURS: Code("40580000", "모의투자 장종료 입니다."),
    Reason.AFTER_MARKET_TYPE: Code("40580000", "모의투자 장종료 입니다."),
    Reason.VENUE_TYPE: Code("90000000", "모의투자에서는 해당업무가 제공되지 않습니다."),
    Reason.TICK: Code("40030000", "모의투자 주문처리가 안되었습니다(호가단위 오류)"),
    Reason.UPPER_LIMIT: Code("40270000", "모의투자 상/하한가 오류 입니다."),
    Reason.LOWER_LIMIT: Code("40270000", "모의투자 상/하한가 오류 입니다."),
    Reason.CASH: Code("40250000", "모의투자 주문가능금액이 부족합니다."),
    # More than there is [?]; nothing at all was seen.
    Reason.SHARES: Code("40240000", "모의투자 잔고내역이 없습니다."),
    Reason.NO_SHARES: Code("40240000", "모의투자 잔고내역이 없습니다."),
    # All three [?].
    Reason.NO_ORDER: Code("40330000", "모의투자 정정/취소할 수량이 없습니다."),
    Reason.NOTHING_LEFT: Code("40330000", "모의투자 정정/취소할 수량이 없습니다."),
    Reason.TOO_EARLY: Code("40330000", "모의투자 거래소 미접수 주문입니다."),
}
REAL_BAD_ACCOUNT = _ledger("APAC0081", "계좌번호 입력 오류입니다.")
PAPER_BAD_ACCOUNT = Code("40910000", "모의투자 주문이 불가한 계좌입니다.")

ORDERED_REAL = Code("APBK0013", "주문 전송 완료 되었습니다.", rt_cd="0")
ORDERED_PAPER_BUY = Code("40600000", "모의투자 매수주문이 완료 되었습니다.", rt_cd="0")
ORDERED_PAPER_SELL = Code("40590000", "모의투자 매도주문이 완료 되었습니다.", rt_cd="0")
CHANGED_PAPER = Code("40630000", "모의투자 정정/취소주문이 완료 되었습니다.", rt_cd="0")
FOUND = Code("MCA00000", "정상처리 되었습니다.", rt_cd="0")
FOUND_NONE_PAPER = Code("70070000", "모의투자 조회할 내역(자료)이 없습니다.", rt_cd="0")
ANY_CODE = {
    one.code: one for one in (*REAL_OVERSEAS.values(), *REAL.values(), *PAPER.values(), *GATEWAY.values())
}
ANY_CODE["90020000"] = Code("90020000", "모의투자 서비스가 지연되고 있습니다.")
