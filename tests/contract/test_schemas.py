"""The generated contracts: committed as they are generated, and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import contracts
from contracts.schema import asyncapi, files
from worker.keys import RouteKeys

ROOT = Path(contracts.__file__).parent
GENERATED = dict(files())


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def follow(document: dict[str, Any], reference: str) -> object:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_the_committed_contract_is_the_generated_one(path: str) -> None:
    committed = json.loads((ROOT / path).read_bytes())

    assert committed == json.loads(GENERATED[path]), "run `make schemas` and look at the difference"


def test_no_committed_schema_is_left_behind() -> None:
    committed = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.json")}

    assert committed == set(GENERATED)


@pytest.mark.parametrize("path", sorted(path for path in GENERATED if path.startswith("schemas/")))
def test_every_schema_is_a_schema_with_a_name_of_its_own(path: str) -> None:
    schema = json.loads(GENERATED[path])

    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:execworker:schema:{path.split('/')[1]}:1"


@pytest.mark.parametrize("path", sorted(GENERATED))
def test_every_reference_leads_somewhere(path: str) -> None:
    document = json.loads(GENERATED[path])

    for reference in references(document):
        assert follow(document, reference)


def test_an_address_of_the_streams_is_the_key_in_redis() -> None:
    keys = RouteKeys("kis_main")

    for name, channel in asyncapi()["channels"].items():
        key = channel["address"].replace("{route}", "{kis_main}")
        assert key == getattr(keys, name)


def test_an_intent_is_answered_on_the_responses_stream() -> None:
    receive = asyncapi()["operations"]["receiveIntent"]

    assert receive["reply"]["channel"] == {"$ref": "#/channels/responses"}
