"""A siege: hostile entries against a route, and the judgement whether every one of them came to its proper end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from contracts import load_response
from tests.desk import KEYS
from tests.hostile.mill import Entry
from tests.hostile.truth import Truth, loose, truth

_OVERSIZE_KEPT = 4096


class Fed(NamedTuple):
    """An entry that lies in its queue."""

    number: int
    entry: Entry
    entry_id: str


@dataclass
class Evidence:
    """What a route has made of a batch."""

    #: The queue's entry id → reason and body of each dead letter.
    dead: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    #: intent_id → each outcome that was published for it.
    responses: dict[str, list[str]] = field(default_factory=dict)
    #: The intent_id of each order at the broker.
    book: list[str] = field(default_factory=list)


class Fault(NamedTuple):
    """A promise broken for one entry."""

    fed: Fed
    what: str


def feed(client: Any, entries: Iterable[tuple[int, Entry]]) -> list[Fed]:
    """Put them into their queues, in order."""
    batch = list(entries)
    pipe = client.pipeline(transaction=False)
    # Ids that no two queues share: a dead letter names the entry and not its queue.
    seconds, micros = client.time()
    for place, (_, entry) in enumerate(batch):
        flat = [part for pair in entry.fields for part in pair]
        entry_id = f"{seconds * 1000 + micros // 1000}-{place}"
        pipe.execute_command("XADD", getattr(KEYS, entry.queue), entry_id, *flat)
    return [
        Fed(number, entry, found.decode())
        for (number, entry), found in zip(batch, pipe.execute(), strict=True)
    ]


def gather(client: Any, book: Iterable[str]) -> Evidence:
    """Read what is in the streams, and drop what was read."""
    found = Evidence(book=list(book))
    for _, fields in _emptied(client, KEYS.dead):
        letter = (fields[b"reason"].decode(), fields[b"body"])
        found.dead.setdefault(fields[b"entry_id"].decode(), []).append(letter)
    for _, fields in _emptied(client, KEYS.responses):
        response = load_response(fields[b"body"])
        found.responses.setdefault(response.intent_id, []).append(str(response.outcome))
    for stream in (KEYS.audit, KEYS.failsafe):
        client.xtrim(stream, maxlen=0, approximate=False)
    return found


def _emptied(client: Any, stream: str) -> Any:
    rows = client.xrange(stream)
    if rows:
        ms, _, seq = rows[-1][0].decode().partition("-")
        client.xtrim(stream, minid=f"{ms}-{int(seq) + 1}", approximate=False)
    return rows


class Judge:
    """Judges batch after batch of one route; it remembers ids, and bodies by their digests."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._seen: set[bytes] = set()
        #: intent_id → how many entries brought it.
        self._brought: Counter[str] = Counter()
        self._orders: set[str] = set()
        self._booked: set[str] = set()
        #: (kind, end) → how many.
        self.ends: Counter[tuple[str, str]] = Counter()

    def judge(self, batch: Sequence[Fed], evidence: Evidence) -> list[Fault]:
        """Every entry of the batch has to have come to its end, and nothing else may have happened."""
        truths = [_truth_of(one.entry) for one in batch]
        for one, found in zip(batch, truths, strict=True):
            if not one.entry.is_oversized and found.intent_id is not None:
                self._brought[found.intent_id] += 1
                if found.valid is not False and found.is_order:
                    self._orders.add(found.intent_id)
        faults = [
            Fault(one, what)
            for one, found in zip(batch, truths, strict=True)
            for what in self._faults_of(one, found, evidence)
        ]
        nowhere = Fed(0, Entry("none", (), None), "")
        return faults + [Fault(nowhere, what) for what in self._beside(batch, evidence)]

    def _faults_of(self, one: Fed, found: Truth, evidence: Evidence) -> Iterator[str]:
        entry, letters = one.entry, evidence.dead.get(one.entry_id, [])
        body = entry.kept
        digest = blake2b(body, digest_size=12).digest()
        was_seen = digest in self._seen
        self._seen.add(digest)
        if len(letters) > 1:
            yield f"{len(letters)} dead letters"
        outcomes = evidence.responses.get(found.intent_id or "", [])
        self._note(entry, letters, outcomes)
        answered = bool(outcomes) or found.intent_id in self._answered
        if entry.is_oversized:
            if [("oversize", body[:_OVERSIZE_KEPT])] != letters:
                yield f"oversized, and not so in the dead letters: {letters!r:.200}"
        elif letters:
            reason, kept = letters[0]
            if kept != body:
                yield f"its dead letter holds other bytes: {kept!r:.200}"
            if found.valid and (reason != "conflict" or self._brought[found.intent_id or ""] < 2):
                yield f"a good intent among the dead letters, as {reason}"
            if found.valid is False and reason != "invalid":
                yield f"dead-lettered as {reason}"
        elif found.valid is False and not (was_seen and answered):
            yield "neither answered nor dead-lettered"
        elif not answered:
            yield "no answer"

    def _note(self, entry: Entry, letters: Sequence[tuple[str, bytes]], outcomes: Sequence[str]) -> None:
        buried = letters[0][0] if letters else ""
        end = " ".join(filter(None, (buried and f"dead:{buried}", outcomes[0] if outcomes else "")))
        self.ends[entry.kind, end or "replay"] += 1

    def _beside(self, batch: Sequence[Fed], evidence: Evidence) -> Iterator[str]:
        fed = {one.entry_id for one in batch}
        if strange := evidence.dead.keys() - fed:
            yield f"dead letters of entries that nobody fed: {sorted(strange)[:3]}"
        for intent_id, outcomes in evidence.responses.items():
            if len(outcomes) > 1 or intent_id in self._answered:
                yield f"{intent_id} was answered again: {outcomes}"
            if intent_id not in self._brought:
                yield f"{intent_id} was answered, and nobody asked"
        for intent_id in evidence.book:
            if intent_id in self._booked:
                yield f"{intent_id} is at the broker twice"
            if intent_id not in self._orders:
                yield f"{intent_id} is at the broker, and no valid order has this id"
            self._booked.add(intent_id)
        self._answered |= evidence.responses.keys()


def _truth_of(entry: Entry) -> Truth:
    return truth(entry.plain) if entry.plain is not None else Truth(False, loose(entry.kept))


def shown(fault: Fault, seed: int) -> str:
    """A fault for people, with what replays it."""
    fields = json.dumps([[repr(part)[:300] for part in pair] for pair in fault.fed.entry.fields[:6]])
    return f"seed {seed} entry {fault.fed.number} ({fault.fed.entry.kind}): {fault.what}\n    {fields}"
