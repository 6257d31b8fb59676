"""What the ledger answers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from contracts import Outcome


class Entry(NamedTuple):
    """An intent as it is offered to the ledger."""

    intent_id: str
    #: Unguessable, made for this one delivery, never stored outside this process's memory and the ledger.
    token: str
    fingerprint: str
    #: The lane; empty for intents that need none (NOOP, CANCEL).
    symbol: str
    #: The stream entry as lanes spell it (``padded``); empty on transports without one.
    entry: str
    #: Milliseconds since the epoch.
    created: int
    not_after: int
    #: The target of a CANCEL, else empty.
    target: str
    body: bytes


class Granted(NamedTuple):
    """It is yours: launch it or settle it, showing the token."""


class Launched(NamedTuple):
    """It may be sent, once, before ``send_before`` (seconds on CLOCK_BOOTTIME)."""

    sequence: int
    send_before: float


class Parked(NamedTuple):
    """Its lane is busy. The ledger holds its bytes and hands it on in turn."""


class Known(NamedTuple):
    """A replay: the ledger holds it already, open or answered."""

    state: str
    response: bytes | None = None


class Conflict(NamedTuple):
    """Same id, other content. Never traded; the first outcome stands."""

    fingerprint: str


Claim = Launched | Granted | Parked | Known | Conflict


class Handed(NamedTuple):
    """An intent that the ledger hands to this worker: the next of a lane, or one that nobody works on any more."""

    intent_id: str
    body: bytes
    token: str


class Later(NamedTuple):
    """The rate limit, or an open CANCEL of its lane: ask again in so many seconds."""

    seconds: float


class Gate(StrEnum):
    """Why an intent may not leave."""

    TRIPPED = "tripped"
    HALTED = "halted"
    ROLLOUT = "rollout"
    EXPIRED = "expired"
    FUTURE = "future"
    CANCELLED = "cancelled"


class Barred(NamedTuple):
    """It may not leave: settle it as denied or expired."""

    gate: Gate
    detail: str = ""


class Stale(NamedTuple):
    """It is not yours any more: send nothing, write nothing."""


Launch = Launched | Later | Barred | Stale


class Settlement(NamedTuple):
    """How one intent ends: with an answer, or as a doubt."""

    intent_id: str
    token: str
    #: The number of its last launch; 0 when it was never launched.
    attempt: int
    verdict: Literal["answer", "doubt"]
    #: An outcome for an answer, a safety code for a doubt.
    outcome: str
    effect: Literal["success", "failure", "none", "bug"]
    #: The response as JSON, or the reason for the doubt.
    payload: bytes | str
    #: What a later cancel needs besides the broker's number.
    reference: str = ""
    #: The order's key, where the broker's rows carry no ids of ours.
    key: str = ""
    #: What the adapter tells of its call, for the audit trail.
    wire: str = ""


class Settled(StrEnum):
    SETTLED = "settled"
    IN_DOUBT = "in_doubt"
    #: The very same call was made before; its reply was lost.
    ALREADY = "already"
    STALE = "stale"


class CancelGate(StrEnum):
    LAUNCHED = "launched"
    NEVER_SENT = "never_sent"
    UNKNOWN = "unknown"
    DONE = "done"
    WAITING = "waiting"
    LATER = "later"
    EXPIRED = "expired"
    STALE = "stale"


class CancelDecision(NamedTuple):
    """What a CANCEL may do now."""

    gate: CancelGate
    send_before: float = 0.0
    #: The target's stored response as JSON.
    response: bytes = b""
    reference: str = ""
    #: Seconds until a slot of the broker's call limit may be free.
    later: float = 0.0


@dataclass(frozen=True, slots=True)
class Doubt:
    """One open doubt, as read before a look-up begins."""

    intent_id: str
    fence: str
    attempt: str
    body: bytes
    #: Milliseconds on Redis's clock.
    launched_at: int
    #: Before this time no absence in the broker's list proves anything.
    quiet_at: int
    since: int
    now: int
    #: For a CANCEL in doubt: its target, and what the ledger holds of it.
    target: str
    target_response: bytes
    target_reference: str
    #: It is of a time of which this server has forgotten launches, or may have: an order like it may be another's.
    is_forgotten_time: bool = False


class Unsure(NamedTuple):
    """The server has changed, and may have forgotten launches; nothing launches until that is cleared up."""

    #: Milliseconds on Redis's clock: when the change was found.
    since: int
    #: Seconds until all that was launched before it shows in the broker's list.
    left: float


class Owner(NamedTuple):
    """Whose an order is."""

    intent_id: str
    #: Milliseconds on Redis's clock.
    launched_at: int


class Buried(StrEnum):
    ANSWERED = "answered"
    BURIED = "buried"
    ALREADY = "already"
    OPEN = "open"


#: Outcomes that are evidence from the broker, which end a doubt even when they come late.
EVIDENCE = frozenset({Outcome.ACCEPTED, Outcome.REJECTED})
