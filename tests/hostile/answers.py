"""A mill of answers that no broker should give, and what each may prove, by the letter of the outcome table."""

from __future__ import annotations

import gzip
import json
import random
import re
from typing import Any, Final

from worker.brokers.kis.codes import CodeVerdict, Then, code_table

Value = Any
_TAKEN: Final = {"KRX_FWDG_ORD_ORGNO": "91252", "ODNO": "0000117057", "ORD_TMD": "100000", "SOR_ODNO": ""}
#: Without those that call the access token dead, after which there is none for a minute.
_CODES: Final = tuple(code for code, row in code_table().items() if row.then is not Then.REFRESH_TOKEN)
_ODD_VALUES: Final[tuple[Value, ...]] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        0.0,
        1e300,
        float("nan"),
        [],
        {},
        [{}],
        [[]],
        "",
        " ",
        "0",
        "00",
        "1",
        "7",
        " 0 ",
    ),
    *(
        "０",
        "٠",
        "0\u0000",
        "-0",
        "0000000000",
        "00000117057",
        "１１７０５７",
        "٣",
        "¹",
        "117057 ",
        "0x1",
        "1e3",
        "9" * 11,
    ),
    *(
        "9" * 5000,
        "1" * 9,
        "ODNO",
        {"ODNO": "1"},
        ["0000117058"],
        "\ud800",
        "\x1b[2J",
        "<html>",
        "1_000",
        "null",
    ),
)


class AnswerMill:
    """Answers of one seed. Each is the bytes of a body with the status and headers to send them under."""

    def __init__(self, seed: int) -> None:
        self._luck = random.Random(seed)
        self._number = 0

    def document(self) -> dict[str, Value]:
        """An envelope, more or less."""
        luck = self._luck
        self._number += 1
        made: dict[str, Value] = {
            "rt_cd": luck.choice(("0", "0", "0", "1", "7", *_ODD_VALUES)),
            "msg_cd": luck.choice(
                ("APBK0013", "40600000", "ZZZZ9999", luck.choice(_CODES), luck.choice(_ODD_VALUES))
            ),
            "msg1": luck.choice(("주문 전송 완료", "x" * 500, luck.choice(_ODD_VALUES))),
            "output": _TAKEN | {"ODNO": luck.choice((f"{self._number:010}", luck.choice(_ODD_VALUES)))},
        }
        for _ in range(luck.choice((0, 0, 1, 1, 2))):
            where = luck.choice((made, made["output"]))
            if isinstance(where, dict) and where:
                where[luck.choice(list(where))] = luck.choice(_ODD_VALUES)
        if luck.random() < 0.2:
            made.pop(luck.choice(list(made)))
        if luck.random() < 0.2:
            made = {luck.choice((name, name.upper(), name.title())): value for name, value in made.items()}
        if luck.random() < 0.2:
            made["output"] = luck.choice(([made.get("output")], [], [1], "x", None, [[made.get("output")]]))
        return made

    def body(self) -> bytes:
        luck = self._luck
        text = json.dumps(self.document(), ensure_ascii=luck.random() < 0.5)
        match luck.randrange(12):
            case 0:
                text = text[: luck.randrange(len(text))]
            case 1:
                # A name twice, the second time in another spelling.
                name = luck.choice(("rt_cd", "RT_CD", "msg_cd", "Msg_Cd", "output", "OUTPUT"))
                text = text[:-1] + f', "{name}": {json.dumps(luck.choice(_ODD_VALUES))}}}'
            case 2:
                text = luck.choice(
                    (f"[{text}]", f"{text}{text}", f"<html>{text}</html>", f"\ufeff{text}", text + "\0")
                )
            case 3:
                text = luck.choice(
                    ("[" * 50_000, '{"a":' * 50_000, "null", '"0"', "", "\x00" * 10, "x" * 300_000)
                )
            case _:
                pass
        data = text.encode(luck.choice(("utf-8",) * 8 + ("utf-16", "cp949", "utf-32")), "replace")
        if luck.random() < 0.15:
            at = luck.randrange(len(data) + 1)
            data = data[:at] + luck.randbytes(luck.randint(1, 4)) + data[at + luck.randint(0, 4) :]
        return data

    def response(self) -> bytes:
        """All of an answer, from its status line on, as bytes on the wire."""
        luck, body = self._luck, self.body()
        status = luck.choice((200, 200, 200, 200, 500, 403, 302, 100, 204, 999, 101, 404))
        line = luck.choice(
            (f"HTTP/1.1 {status} X",) * 12 + ("HTTP/1.0 200", "HTTP/2 200 OK", "ICY 200 OK", "HTTP/1.1 2x0 A")
        )
        more = luck.choice(
            ("",) * 8 + ("tr_id: OTHER\r\n", "content-encoding: gzip\r\n", "location: /x\r\n", "x: \x00\r\n")
        )
        head = f"{line}\r\ncontent-type: text/html\r\n{more}"
        match luck.randrange(14):
            case 0:
                return (
                    f"{head}transfer-encoding: chunked\r\n\r\n{len(body):x}\r\n".encode("latin-1")
                    + body
                    + b"\r\n0\r\n\r\n"
                )
            case 1:
                return f"{head}transfer-encoding: chunked\r\n\r\nzz\r\n".encode("latin-1") + body
            case 2:
                return f"{head}content-length: {len(body) + 9}\r\n\r\n".encode("latin-1") + body
            case 3:
                return f"{head}content-length: {len(body) // 2}\r\n\r\n".encode("latin-1") + body
            case 4:
                return (
                    f"{head}content-length: {luck.choice((-1, 'x', 10**30))}\r\n\r\n".encode("latin-1") + body
                )
            case 5:
                return luck.randbytes(luck.choice((0, 1, 60, 5000)))
            case 6:
                packed = gzip.compress(body)
                return (
                    f"{head}content-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode("latin-1")
                    + packed
                )
            case 7:
                return f"{head}x: {'y' * 200_000}\r\n\r\n".encode("latin-1") + body
            case _:
                return f"{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body


def may_prove(body: bytes) -> set[str]:
    """What the table allows an adapter to conclude from the body of an answer, besides that nothing is known."""
    try:
        found = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError):
        return set()
    if not isinstance(found, list) or not all(isinstance(pair, tuple) for pair in found):
        return set()
    codes = {_plain(value) for value in _all(found, "msg_cd") or _all(found, "error_code")}
    said = {_plain(value) for value in _all(found, "rt_cd")}
    if len(codes) > 1 or len(said) > 1:
        return set()
    row = code_table().get(next(iter(codes), ""))
    if said == {"0"}:
        numbers = {_plain(value) for output in _all(found, "output") for value in _numbers(output)}
        is_number = len(numbers) == 1 and all(
            re.fullmatch("[0-9]{1,10}", n, re.ASCII) and int(n) for n in numbers
        )
        return {"accepted"} if is_number and row is None else set()
    if row is None:
        return set()
    return {CodeVerdict.REJECTED: {"Rejected"}, CodeVerdict.NOT_SENT: {"NotSent"}}.get(row.verdict, set())


def _all(pairs: list[tuple[str, Value]], name: str) -> list[Value]:
    return [value for key, value in pairs if key.lower() == name]


def _numbers(output: Value) -> list[Value]:
    if isinstance(output, list) and output and not isinstance(output[0], tuple):
        output = output[0]
    pairs = output if isinstance(output, list) else []
    return _all([pair for pair in pairs if isinstance(pair, tuple)], "odno")


def _plain(value: Value) -> str:
    return value.strip() if isinstance(value, str) else str(value) if type(value) is int else repr(value)
