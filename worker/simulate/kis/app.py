"""The HTTP face: requests into values, answers out, and the accidents that happen in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from worker.clock import Clock
from worker.errors import ConfigError
from worker.simulate.exchange import Mishap
from worker.simulate.faults import FaultPlan, read_plan
from worker.simulate.kis.accidents import meet
from worker.simulate.kis.calls import CALLS, Call
from worker.simulate.kis.desk import Desk
from worker.simulate.kis.notices import Noticeboard, Session, ping
from worker.simulate.kis.wire import Asked, Reply, answered, hash_of, oauth_refused
from worker.simulate.orders import Order, What, to_line

#: Seconds between two looks at the market that nobody asked for, and between two PINGPONGs.
TICK, PING = 0.1, 10.0


class KISApp:
    """The routes of one simulated server."""

    def __init__(self, desk: Desk, faults: FaultPlan, clock: Clock) -> None:
        self._desk = desk
        self._faults = faults
        self._clock = clock
        self._board: Noticeboard | None = None

    def asgi(self) -> Starlette:
        gatehouse = self._desk.gatehouse
        routes: list[BaseRoute] = [
            Route(call.path, self._uapi(call), methods=[call.method]) for call in CALLS
        ]
        routes += [
            Route("/oauth2/tokenP", self._oauth(gatehouse.issue, "token"), methods=["POST"]),
            Route("/oauth2/revokeP", self._oauth(gatehouse.revoke), methods=["POST"]),
            Route("/oauth2/Approval", self._oauth(gatehouse.approve), methods=["POST"]),
            Route("/uapi/hashkey", self._hashkey, methods=["POST"]),
            Route("/sim/book", self._book, methods=["GET"]),
            Route("/sim/faults", self._fault_plan, methods=["GET", "POST", "DELETE"]),
            Route("/sim/stats", self._stats, methods=["GET"]),
            Route("/sim/tokens", self._tokens, methods=["DELETE"]),
            *(WebSocketRoute(path, self._notices) for path in ("/", "/tryitout", "/tryitout/{tr_id}")),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    # --- Calls ------------------------------------------------------------------------------------------------

    def _uapi(self, call: Call) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            asked = await _read(call, request)
            reply = self._desk.check(asked)
            if reply is not None:
                return _response(asked, reply)
            fault = self._faults.draw(call.group)
            if fault is None:
                return _response(asked, self._desk.carry_out(asked, Mishap()))
            return await meet(
                fault, request, partial(self._desk.carry_out, asked), answered, partial(_response, asked)
            )

        return serve

    def _oauth(
        self, act: Callable[[dict[str, Any]], Reply], group: str | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            body = _document(await request.body())
            fault = self._faults.draw(group) if group else None
            if fault is None:
                return _json(act(body))
            return await meet(
                fault,
                request,
                lambda _: act(body),
                lambda code: oauth_refused(code.code, code.message),
                _json,
            )

        return serve

    async def _hashkey(self, request: Request) -> Response:
        body = _document(await request.body())
        return _json(Reply(200, {"BODY": body, "HASH": hash_of(body)}))

    # --- The simulator's own ----------------------------------------------------------------------------------

    async def _book(self, request: Request) -> Response:
        account = request.query_params.get("account", "").replace("-", "")
        exchange = self._desk.exchange
        with exchange.lock:
            exchange.advance()
            orders = [book_row(one) for one in exchange.book.everything() if account in ("", one.account)]
        return _json(Reply(200, {"orders": orders}))

    async def _fault_plan(self, request: Request) -> Response:
        if request.method != "GET":
            try:
                self._faults.set(read_plan(await request.body()) if request.method == "POST" else [])
            except ConfigError as error:
                return _json(Reply(400, {"errors": error.faults}))
        return _json(Reply(200, self._faults.state()))

    async def _stats(self, _: Request) -> Response:
        desk = self._desk
        counted = {
            "calls": dict(desk.calls),
            "refusals": dict(desk.refusals),
            "tokens": desk.gatehouse.tokens_issued,
        }
        return _json(Reply(200, counted))

    async def _tokens(self, _: Request) -> Response:
        self._desk.gatehouse.revoke_all()
        return _json(Reply(200, {"revoked": "all"}))

    # --- Notices ----------------------------------------------------------------------------------------------

    async def _notices(self, socket: WebSocket) -> None:
        board = self._board
        assert board is not None  # the lifespan made it
        await socket.accept()
        out: asyncio.Queue[str] = asyncio.Queue()
        session = Session(out.put_nowait)
        board.join(session)
        sender = asyncio.create_task(self._send_notices(socket, out))
        try:
            while True:
                answer = board.answer(session, await socket.receive_text())
                if answer is not None:
                    out.put_nowait(answer)
        except WebSocketDisconnect:
            pass
        except ConnectionAbortedError:
            await socket.close(1011)
        finally:
            board.leave(session)
            sender.cancel()

    async def _send_notices(self, socket: WebSocket, out: asyncio.Queue[str]) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                try:
                    text = await asyncio.wait_for(out.get(), PING)
                except TimeoutError:
                    text = ping(self._clock.now())
                await socket.send_text(text)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        desk = self._desk
        self._board = Noticeboard(desk.options, desk.gatehouse.app_key_of, asyncio.get_running_loop())
        desk.exchange.listen(self._board.hear)
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            desk.exchange.forget(self._board.hear)

    async def _tick(self) -> None:
        while True:
            self._desk.exchange.advance()
            await asyncio.sleep(TICK)


async def _read(call: Call, request: Request) -> Asked:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.scope["headers"]
    }
    if call.method == "GET":
        query = request.scope["query_string"].decode("latin-1")
        return Asked(call, dict(parse_qsl(query, keep_blank_values=True)), headers)
    return Asked(call, _document(await request.body()), headers)


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _response(asked: Asked, reply: Reply) -> Response:
    response = _json(reply)
    response.headers["tr_id"] = asked.tr_id
    response.headers["tr_cont"] = reply.tr_cont
    response.headers["gt_uid"] = uuid4().hex
    return response


def _json(reply: Reply) -> Response:
    body = json.dumps(reply.body, ensure_ascii=False, default=str).encode()
    return Response(body, reply.status, media_type="application/json; charset=utf-8")


def book_row(order: Order) -> dict[str, Any]:
    """An order as ``/sim/book`` shows it: the truth, without lag."""
    asked = {name: value for name, value in to_line(order).items() if name != "event"}
    changes = [
        {"what": one.what.value, "quantity": one.quantity, "price": str(one.price), "at": one.at.isoformat()}
        for one in order.changes
    ]
    counts = {what.value: order.count(what) for what in What}
    return asked | counts | {"remaining": order.remaining, "changes": changes}
