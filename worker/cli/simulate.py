"""A broker on this machine, speaking its wire protocol, with faults on demand."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.context import BAD_CONFIG, UNAVAILABLE, JsonOption, fail, note, show

if TYPE_CHECKING:
    from worker.simulate.faults import Fault
    from worker.simulate.kis import KISOptions

simulate = typer.Typer(
    help="A broker on this machine, with its own wire protocol and faults on demand.", no_args_is_help=True
)

#: What the extra ``simulator`` brings.
_NEEDS = ("starlette", "uvicorn", "websockets", "cryptography")
_ALWAYS_OPEN = "open"

_Host = Annotated[str, typer.Option("--host", help="Where to listen.")]
_Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
_Paper = Annotated[bool, typer.Option("--paper", help="Be the paper server (모의투자), not the real one.")]
_At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="MOMENT|open",
        help="The exchange's clock starts there (2026-11-23T10:00+09:00), or its sessions never end (open).",
    ),
]
_Book = Annotated[
    Path | None, typer.Option("--book", dir_okay=False, help="A JSONL file that keeps the book.")
]
_Seed = Annotated[int, typer.Option("--seed", help="Of prices, depths and fault rates.")]
_Depth = Annotated[
    int, typer.Option("--depth", min=1, help="Mean shares on each side of a market, each second.")
]
_Rate = Annotated[
    int | None,
    typer.Option(
        "--rate", min=0, help="Calls a second and app key; 0: no limit.", show_default="18, paper 1"
    ),
]
_LedgerRate = Annotated[
    int, typer.Option("--ledger-rate", min=0, help="Ledger inquiries a second and account; 0: no limit.")
]
_TokenLife = Annotated[float, typer.Option("--token-life", min=1, help="Seconds.")]
_TokenInterval = Annotated[
    float,
    typer.Option("--token-interval", min=0, help="Seconds between two tokens of an app key; 0: no limit."),
]
_VisibilityLag = Annotated[
    float, typer.Option("--visibility-lag", min=0, help="Seconds until lists show what happened.")
]
_ExchangeLag = Annotated[
    float, typer.Option("--exchange-lag", min=0, help="Seconds until an order reaches the exchange.")
]
_AppKey = Annotated[str | None, typer.Option("--app-key", help="Let only this one in; with --app-secret.")]
_AppSecret = Annotated[str | None, typer.Option("--app-secret", help="The secret of --app-key.")]
_Account = Annotated[
    list[str] | None, typer.Option("--account", metavar="12345678-01", help="Only this one; may be repeated.")
]
_HtsId = Annotated[str | None, typer.Option("--hts-id", help="The only one that may have notices.")]
_OldNotices = Annotated[
    bool, typer.Option("--old-notices", help="Notices with 23 and 21 fields, for clients that count them.")
]
_Cash = Annotated[int, typer.Option("--cash", min=0, help="KRW that every account starts with.")]
_Holding = Annotated[
    list[str] | None,
    typer.Option(
        "--holding",
        metavar="SYMBOL=SHARES",
        help="What every account starts with, instead of 1,000 shares of everything; may be repeated.",
    ),
]
_Fault = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="WHAT=RATE", help="An accident of orders, by chance; may be repeated."),
]
_Faults = Annotated[
    Path | None,
    typer.Option("--faults", exists=True, dir_okay=False, help="A JSON list of fault rules; before --fault."),
]


@simulate.callback()
def _brokers() -> None: ...


@simulate.command()
def kis(
    host: _Host = "127.0.0.1",
    port: _Port = 9443,
    paper: _Paper = False,
    at: _At = None,
    book: _Book = None,
    seed: _Seed = 1,
    depth: _Depth = 200,
    rate: _Rate = None,
    ledger_rate: _LedgerRate = 1,
    token_life: _TokenLife = 86_400,
    token_interval: _TokenInterval = 60,
    visibility_lag: _VisibilityLag = 0.5,
    exchange_lag: _ExchangeLag = 0,
    app_key: _AppKey = None,
    app_secret: _AppSecret = None,
    account: _Account = None,
    hts_id: _HtsId = None,
    old_notices: _OldNotices = False,
    cash: _Cash = 1_000_000_000,
    holding: _Holding = None,
    fault: _Fault = None,
    faults: _Faults = None,
    as_json: JsonOption = False,
) -> None:
    """KIS (한국투자증권 Open API): REST and execution notices on one port, until interrupted."""
    _require_extra()
    from worker.simulate.kis import KISOptions

    options = KISOptions(
        mode="paper" if paper else "real",
        book=book,
        at=_moment(at),
        always_open=at == _ALWAYS_OPEN,
        seed=seed,
        depth=depth,
        rate=rate,
        ledger_rate=ledger_rate,
        token_life=token_life,
        token_interval=token_interval,
        visibility_lag=visibility_lag,
        exchange_lag=exchange_lag,
        app_key=app_key,
        app_secret=app_secret,
        accounts=frozenset(account or ()),
        hts_id=hts_id,
        old_notices=old_notices,
        cash={"KRW": Decimal(cash), "USD": Decimal(1_000_000)},
        **({} if holding is None else {"holdings": _holdings(holding)}),
        faults=tuple(_rules(faults, fault or [])),
    )
    for one in account or ():
        if not re.fullmatch(r"[0-9]{8}-[0-9]{2}", one):
            raise typer.BadParameter(f"{one!r}: write 12345678-01", param_hint="--account")
    if (app_key is None) != (app_secret is None):
        raise typer.BadParameter("give both --app-key and --app-secret, or neither")
    _serve(options, host, port, as_json)


def _serve(options: KISOptions, host: str, port: int, as_json: bool) -> None:
    from worker.simulate.kis import KISSimulator
    from worker.simulate.serving import listen, serve_until_stopped, url_of

    simulator = KISSimulator(options)
    try:
        listening = listen(host, port)
    except OSError as error:
        fail(UNAVAILABLE, f"cannot listen on {host}:{port}: {error.strerror}; name another with --port")
    url = url_of(listening)
    show({"url": url, "mode": options.mode}, f"KIS, {options.mode}, on {url}", as_json)
    note("notices on ws, same port, /tryitout; the book: /sim/book; faults: /sim/faults")
    try:
        serve_until_stopped(simulator.asgi(), listening)
    finally:
        simulator.close()


def _require_extra() -> None:
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        fail(
            BAD_CONFIG,
            f"not installed: {', '.join(missing)}. pip install 'execution-worker[simulator]' brings them",
        )


def _moment(text: str | None) -> datetime | None:
    if text is None or text == _ALWAYS_OPEN:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r} is no moment with a zone; write 2026-11-23T10:00+09:00, or open", param_hint="--at"
        )
    return found


def _holdings(pairs: list[str]) -> dict[str, int]:
    from worker.simulate.universe import universe

    held = {}
    for pair in pairs:
        symbol, _, shares = pair.partition("=")
        if symbol not in universe() or not shares.isdecimal():
            raise typer.BadParameter(
                f"{pair!r}: write SYMBOL=SHARES; known are {', '.join(universe())}", param_hint="--holding"
            )
        held[symbol] = int(shares)
    return held


def _rules(file: Path | None, by_chance: list[str]) -> list[Fault]:
    from worker.simulate.faults import read_plan

    rules: list[dict[str, Any]] = []
    for pair in by_chance:
        what, _, rate = pair.partition("=")
        try:
            rules.append({"what": what, "rate": Decimal(rate)})
        except InvalidOperation:
            raise typer.BadParameter(
                f"{pair!r}: write WHAT=RATE, such as reset=0.05", param_hint="--fault"
            ) from None
    return [*(read_plan(file.read_bytes()) if file else []), *read_plan(rules)]
