"""What happens to a call that meets a fault: between the wire and the desk, where only the connection is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from worker.simulate.exchange import Mishap
from worker.simulate.faults import Accident, Fault
from worker.simulate.kis.codes import ANY_CODE, Code
from worker.simulate.kis.wire import Reply
from worker.simulate.serving import TRANSPORT, reset

_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>"
_NOT_DONE = Reply(500, {})


async def meet(
    fault: Fault,
    request: Request,
    act: Callable[[Mishap], Reply],
    refuse: Callable[[Code], Reply],
    render: Callable[[Reply], Response],
) -> Response:
    """Carry the call out as the fault has it: ``act`` does it, ``refuse`` says a code, ``render`` makes HTTP of it."""
    if fault.what == Accident.HOLD:
        await asyncio.sleep(fault.lasts)
    reply = act(_mishap(fault)) if fault.carried_out else _NOT_DONE
    if fault.code is not None:
        return render(refuse(ANY_CODE.get(fault.code, Code(fault.code, "", 500))))
    match Accident(fault.what):
        case Accident.DELAY:
            await asyncio.sleep(fault.lasts)
        case Accident.LOSE_REPLY:
            with suppress(TimeoutError):
                await asyncio.wait_for(_gone(request), fault.lasts)
            request.scope[TRANSPORT].abort()
            await _gone(request)
        case Accident.RESET:
            reset(request.scope[TRANSPORT])
            await _gone(request)
        case Accident.HTML:
            return Response(_PAGE, 502, media_type="text/html")
        case Accident.GARBLED:
            whole = bytes(render(reply).body)
            return Response(whole[: len(whole) // 2], 200, media_type="application/json")
        case Accident.NO_NUMBER if isinstance(output := reply.body.get("output"), dict):
            return render(Reply(reply.status, {**reply.body, "output": output | {"ODNO": ""}}, reply.tr_cont))
        case Accident.DOUBLED:
            return _Twice(render(reply))
    return render(reply)


def _mishap(fault: Fault) -> Mishap:
    return Mishap(
        hidden=fault.lasts if fault.what == Accident.HIDE else 0.0,
        refused_after=fault.lasts if fault.what == Accident.REFUSE_LATER else None,
    )


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Twice(Response):
    # The second copy goes straight to the socket: HTTP has no such thing.
    def __init__(self, once: Response) -> None:
        super().__init__(once.body, once.status_code, dict(once.headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        scope[TRANSPORT].write(f"HTTP/1.1 {self.status_code} OK\r\n{head}\r\n".encode() + bytes(self.body))
