"""
A mill of hostile queue entries. It knows what an intent looks like, and breaks it.

Entry ``number`` of ``seed`` is always the same, whatever was made before it, so a finding is two numbers.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import pickle
import random
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

#: As a worker has it without settings.
ENTRY_BYTES_MAX: Final = 65536


class Entry(NamedTuple):
    """One entry of a queue, as it is put there."""

    kind: str
    fields: tuple[tuple[bytes, bytes], ...]
    #: What may be an intent: the body, unpacked. ``None``: there is none, or it cannot be unpacked.
    plain: bytes | None
    queue: str = "intents"

    @property
    def is_oversized(self) -> bool:
        values = sum(len(value) for _, value in self.fields)
        return values + sum(len(name) for name, _ in self.fields if name != b"body") > ENTRY_BYTES_MAX

    @property
    def kept(self) -> bytes:
        """The bytes that its dead letter has to hold; of an oversized entry, their beginning."""
        if self.plain is not None:
            return self.plain
        bodies = [value for name, value in self.fields if name == b"body"]
        if bodies:
            return bodies[0]
        if self.is_oversized:
            return b" ".join(part for pair in self.fields for part in pair)
        texts: dict[str, str] = {}
        for pair in self.fields:
            name, value = (part.decode("utf-8", "backslashreplace") for part in pair)
            texts.setdefault(name, value)
        return json.dumps(texts).encode()


#: Values that belong nowhere in an intent, or nearly.
_MISFITS: Final[tuple[str, ...]] = (
    *(
        "null",
        "true",
        "false",
        "[]",
        "{}",
        '""',
        '" "',
        "0",
        "-0",
        "-1",
        "1.5",
        "1.0",
        "1e3",
        "1E400",
        "-1e-400",
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "0x10",
        "010",
        "1e999999",
        "9" * 400,
        "9" * 5000,
        '"' + "9" * 5000 + '"',
    ),
    *('"NaN"', '"Infinity"', '"1e5"', '"0x10"', '"+1"', '"-1"', '" 1"', '"1 "', '"1_000"', '"1,000"', '"1."'),
    *(
        '".5"',
        '"0"',
        '"0.0"',
        '"1e999999"',
        '"1.0000000000001"',
        '"9999999999999999999"',
        '"000000000000000001"',
    ),
    *(
        '["10"]',
        '{"value":10}',
        '[[[["10"]]]]',
        '"BUY\\u0000"',
        '"buy"',
        '"LIMIT "',
        '"DAY\\n"',
        '"' + "A" * 70 + '"',
    ),
)
_TIMES: Final[tuple[str, ...]] = (
    *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"),
    *(
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59.999999-23:59",
        "2026-02-30T00:00:00Z",
        "2026-11-23T24:00:00Z",
    ),
    *("2026-11-23T23:59:60Z", "2026-11-23T09:00:00", "2026-11-23", "1795392000", "2026-11-23T09:00:00+99:99"),
    *(
        "20261123T090000Z",
        "2026-11-23 09:00:00Z",
        "2026-11-23t09:00:00z",
        "2026-11-23T09:00Z",
        "now",
        "0000-00-00",
    ),
    *(
        "2026-11-23T09:00:00.123456789Z",
        "2026-11-23T09:00:00−05:00",
        "+12026-11-23T09:00:00Z",
        "2026-W48-1T09:00:00Z",
    ),
)
_DIGITS: Final = ("０１２３４５６７８９", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "⁰¹²³⁴⁵⁶⁷⁸⁹", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗")
_CONTROLS: Final = (
    *(
        "\\u0000",
        "\x00",
        "\n",
        "\\n",
        "\x1b[2J",
        "\\u001b]0;x\\u0007",
        "\x7f",
        "\\ud800",
        "\\udc00\\ud800",
        "\ufeff",
    ),
    *("\u202e", "\u2028", "\x85", "\\", '\\"', "\\x41", "\t"),
)
#: Zeros, packed: what they would become is 10,000 to 1,000,000 times as long.
_BOMBS: Final = (
    ("application/x-gzip", zlib.compress(bytes(20_000_000), 9)),
    ("application/x-bz2", bz2.compress(bytes(30_000_000))),
    ("application/x-lzma", lzma.compress(bytes(30_000_000))),
)

Maker = Callable[["Mill", random.Random, int], Entry]
_MAKERS: list[tuple[int, Maker]] = []


def _kind(weight: int) -> Callable[[Maker], Maker]:
    def add(maker: Maker) -> Maker:
        _MAKERS.append((weight, maker))
        return maker

    return add


class Mill:
    """Makes entries. ``now`` is when the intents in them were decided on; the clock of whoever feeds them."""

    def __init__(self, seed: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.seed = seed
        self.now = now
        self._makers = [maker for _, maker in _MAKERS]
        self._weights = [weight for weight, _ in _MAKERS]

    def entry(self, number: int) -> Entry:
        luck = random.Random(f"{self.seed}:{number}")
        (maker,) = luck.choices(self._makers, self._weights)
        made = maker(self, luck, number)
        return made._replace(kind=maker.__name__.strip("_"))

    def intent(self, luck: random.Random, number: int) -> dict[str, Any]:
        """A good one, with an id that no other entry has."""
        kind = luck.choice(("MARKET", "LIMIT", "LIMIT", "NOOP"))
        made: dict[str, Any] = {
            "intent_id": f"h{self.seed}-{number}",
            "intent_type": kind,
            "symbol": luck.choice(("005930", "000660", "BRK.B", f"S{luck.randrange(500)}")),
            "created_at": self.now().isoformat(),
        }
        if kind != "NOOP":
            made["side"] = luck.choice(("BUY", "SELL"))
            made["quantity"] = luck.choice((1, "10", "0.5", 10**17))
        if kind == "LIMIT":
            made["limit_price"] = luck.choice((71000, "71000.50", "0.000000000001"))
        for name, value in (("strategy", "전략 1"), ("metadata", {"a": 1.5, "b": None}), ("venue", "KRX")):
            if luck.random() < 0.2:
                made[name] = value
        return made


def _json(made: Any) -> bytes:
    return json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _body(body: bytes, *more: tuple[bytes, bytes], queue: str = "intents") -> Entry:
    return Entry("", ((b"body", body), *more), body, queue)


def _with(made: dict[str, Any], name: str, text: str) -> bytes:
    """The intent with this text, as it stands, for a value."""
    return _json(made | {name: "@"}).replace(b'"@"', text.encode("utf-8", "surrogatepass"))


@_kind(12)
def _valid(mill: Mill, luck: random.Random, number: int) -> Entry:
    return _body(_json(mill.intent(luck, number)))


@_kind(4)
def _again(mill: Mill, luck: random.Random, number: int) -> Entry:
    # Ids that come again soon, with the same content or with other.
    made = mill.intent(luck, number)
    return _body(_json(made | {"intent_id": f"h{mill.seed}-again-{number // 40}-{luck.randrange(4)}"}))


@_kind(4)
def _cancel(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number)
    target = f"h{mill.seed}-{luck.randrange(max(1, number - 50), number + 2)}"
    for name in ("side", "quantity", "limit_price"):
        made.pop(name, None)
    made |= {"intent_type": "CANCEL", "target_intent_id": target}
    if luck.random() < 0.3:
        made["expires_at"] = luck.choice(_TIMES)
    return _body(_json(made), queue=luck.choice(("cancels", "intents")))


@_kind(14)
def _bent(mill: Mill, luck: random.Random, number: int) -> Entry:
    body = bytearray(_json(mill.intent(luck, number)))
    for _ in range(luck.randint(1, 4)):
        at = luck.randrange(len(body))
        match luck.randrange(4):
            case 0:
                body[at] ^= 1 << luck.randrange(8)
            case 1:
                body[at:at] = luck.randbytes(luck.randint(1, 3))
            case 2:
                del body[at : at + luck.randint(1, 8)]
            case _:
                other = luck.randrange(len(body))
                body[at], body[other] = body[other], body[at]
    return _body(bytes(body), queue=luck.choice(("intents",) * 9 + ("cancels",)))


@_kind(5)
def _truncated(mill: Mill, luck: random.Random, number: int) -> Entry:
    body = _json(mill.intent(luck, number))
    return _body(body[: luck.randrange(len(body))])


@_kind(6)
def _garbage(mill: Mill, luck: random.Random, number: int) -> Entry:
    return _body(luck.randbytes(luck.choice((0, 1, 7, 40, 300))), queue=luck.choice(("intents", "cancels")))


@_kind(1)
def _huge(mill: Mill, luck: random.Random, number: int) -> Entry:
    room = luck.choice((ENTRY_BYTES_MAX - 1, ENTRY_BYTES_MAX, ENTRY_BYTES_MAX + 1, 2 * ENTRY_BYTES_MAX))
    match luck.randrange(4):
        case 0:
            return _body(_json(mill.intent(luck, number)).ljust(room))
        case 1:
            return _body(b"{" * room)
        case 2:
            return _body(_json(mill.intent(luck, number)), (b"n" * room, b""))
        case _:
            return _body(b"x" * (room // 2), (b"body", b"y" * (room - room // 2)))


@_kind(3)
def _deep(mill: Mill, luck: random.Random, number: int) -> Entry:
    depth = luck.choice((10, 150, 250, 900, 1100, 20_000))
    opening, closing = luck.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
    depth = min(depth, ENTRY_BYTES_MAX // (2 * len(opening)) - 200)
    nested = opening * depth + "1" + closing * depth * luck.randrange(2)
    if luck.random() < 0.3:
        return _body(nested.encode())
    return _body(_with(mill.intent(luck, number), luck.choice(("metadata", "symbol", "other")), nested))


@_kind(14)
def _wrong_type(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number)
    name = luck.choice(
        (*made, "schema_version", "time_in_force", "target_intent_id", "expires_at", "metadata")
    )
    return _body(_with(made, name, luck.choice(_MISFITS)))


@_kind(4)
def _times(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number)
    for name in luck.choice((("created_at",), ("expires_at",), ("created_at", "expires_at"))):
        made[name] = luck.choice(_TIMES)
    return _body(_json(made))


@_kind(3)
def _stale(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number)
    made["created_at"] = (mill.now() + timedelta(days=luck.choice((-30_000, -1, 1, 1000)))).isoformat()
    return _body(_json(made))


@_kind(5)
def _look_alike(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number)
    name = luck.choice([name for name in made if any(char.isdigit() for char in str(made[name]))])
    digits = luck.choice(_DIGITS)
    at = str.maketrans("0123456789", digits)
    made[name] = str(made[name]).translate(at) if luck.random() < 0.7 else digits[1] + str(made[name])
    return _body(_json(made))


@_kind(6)
def _control(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number) | {"strategy": "s"}
    name = luck.choice([name for name in made if isinstance(made[name], str)])
    at = luck.randint(0, len(made[name]))
    return _body(_with(made, name, '"' + made[name][:at] + luck.choice(_CONTROLS) + made[name][at:] + '"'))


@_kind(6)
def _twice(mill: Mill, luck: random.Random, number: int) -> Entry:
    made, other = mill.intent(luck, number), mill.intent(luck, number)
    name = luck.choice((*made, "intent_id", "symbol", "quantity"))
    value = luck.choice((other.get(name, "X"), "X", None, f"h{mill.seed}-{number}-b", [], 2))
    pair = _json({luck.choice((name, name, name.upper(), f" {name}")): value})[1:-1]
    whole = _json(made)
    # A key may also be spelt with escapes.
    if luck.random() < 0.3:
        pair = pair.replace(b"_", b"\\u005f")
    return _body(b"{" + pair + b"," + whole[1:] if luck.random() < 0.5 else whole[:-1] + b"," + pair + b"}")


@_kind(6)
def _not_quite_json(mill: Mill, luck: random.Random, number: int) -> Entry:
    whole = _json(mill.intent(luck, number))
    other = (
        *(
            whole + whole,
            whole + b",",
            b"[" + whole + b"]",
            b"\xef\xbb\xbf" + whole,
            whole + b"\0",
            b"\0" + whole,
        ),
        *(whole.replace(b'"', b"'"), whole[:-1] + b",}", whole + b"//", b"/**/" + whole, b'"' + whole + b'"'),
        *(
            b"null",
            b"1",
            b"[]",
            b"{}",
            b'""',
            b"\n\r\t " + whole + b" \n",
            whole.replace(b":", b"="),
            b"true",
        ),
        *(_json(whole.decode()), whole.replace(b",", b", \n"), b"data: " + whole, b")]}'" + whole),
    )
    return _body(luck.choice(other))


@_kind(4)
def _unknown_field(mill: Mill, luck: random.Random, number: int) -> Entry:
    made = mill.intent(luck, number)
    more: tuple[dict[str, Any], ...] = (
        *({"Quantity": 5}, {"__class__": "x"}, {"": ""}, {"\x1b[2J": 1}, {"body": made}, {"accepted": True}),
        {f"f{number}": number for number in range(2000)},
        {"k" * 20_000: 1},
    )
    return _body(_json(made | luck.choice(more)))


@_kind(3)
def _metadata(mill: Mill, luck: random.Random, number: int) -> Entry:
    found = (
        '{"a":{"b":1}}',
        '{"a":[1]}',
        '{"a":NaN}',
        '{"a":1e999}',
        '{"a":"' + "x" * 4080 + '"}',
        "[]",
        '"x"',
    )
    more = (
        '{"a":' + "9" * 4000 + "}",
        '{"a":' + "9" * 5000 + "}",
        '{"\\u0000":"\\u0000"}',
        '{"a":"\\ud800"}',
        '{"":""}',
    )
    return _body(_with(mill.intent(luck, number), "metadata", luck.choice(found + more)))


@_kind(6)
def _foreign(mill: Mill, luck: random.Random, number: int) -> Entry:
    whole = _json(mill.intent(luck, number))
    packed = base64.b64encode(whole).decode()
    about = {"exchange": "", "routing_key": "q"}
    envelope = {
        "body": packed,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
    }
    celery = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    pickled = pickle.dumps({"intent_id": f"h{mill.seed}-{number}"})
    found = (
        _body(_json(envelope | {"properties": {"body_encoding": "base64", "delivery_info": about}})),
        _body(_json({k: v for k, v in envelope.items() if k != "body"})),
        _body(_json(celery), (b"task", b"trade"), (b"id", b"1")),
        _body(
            pickled, (b"content-type", b"application/x-python-serialize"), (b"content-encoding", b"binary")
        ),
        _body(packed.encode(), (b"body_encoding", b"base64")),
        _body(whole, (b"content-encoding", b"no-such"), (b"content-type", b"\xff\xfe")),
        _body(whole, (b"properties", luck.choice((b"[" * 9000, b"null", b'{"delivery_info":1}', b"\xff")))),
        _body(whole, (b"traceparent", luck.randbytes(30)), (luck.randbytes(5), b"")),
        _body(b"message=" + packed.encode(), (b"content-type", b"application/x-www-form-urlencoded")),
    )
    return luck.choice(found)


@_kind(4)
def _packed(mill: Mill, luck: random.Random, number: int) -> Entry:
    whole = _json(mill.intent(luck, number))
    good = (("zlib", zlib.compress(whole)), ("bzip2", bz2.compress(whole)), ("xz", lzma.compress(whole)))
    bad = (
        *(
            ("gzip", gzip.compress(whole)),
            ("zlib", zlib.compress(whole)[:-3]),
            ("zlib", zlib.compress(whole) + b"x"),
        ),
        *(("lzma", b""), ("zstd", whole), ("application/x-bz2", whole), ("\x00", b"x")),
    )
    name, body = luck.choice((*good, *bad, *_BOMBS))
    plain = whole if (name, body) in good else None
    return _body(body, (b"compression", name.encode()))._replace(plain=plain)


@_kind(3)
def _spelt_otherwise(mill: Mill, luck: random.Random, number: int) -> Entry:
    whole = _json(mill.intent(luck, number)).decode()
    return _body(
        whole.encode(luck.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "cp949", "utf-8-sig")), "ignore")
    )


@_kind(5)
def _fields(mill: Mill, luck: random.Random, number: int) -> Entry:
    whole = _json(mill.intent(luck, number))
    match luck.randrange(5):
        case 0:
            return Entry("", ((b"Body", whole), (b"data", whole)), None)
        case 1:
            return Entry("", ((luck.randbytes(4), luck.randbytes(9)),) * 3, None)
        case 2:
            return _body(whole, (b"body", b"another"))
        case 3:
            return _body(whole, *((b"f%d" % n, b"") for n in range(luck.choice((1, 900)))))
        case _:
            names = [f"{name}".encode() for name in mill.intent(luck, number)]
            return Entry("", tuple((name, b"1") for name in names), None)
