"""The site builds without a warning, every page is in it, and its generated pages are what the code says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from tests.docs.commands import page
from tests.docs.test_snippets import ROOT

COMMANDS = ROOT / "docs" / "commands.md"


def test_the_site_builds_without_a_warning_and_has_every_page(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "site" / "first-ten-minutes" / "index.html").exists()


def test_the_page_of_commands_is_what_the_command_line_says() -> None:
    if os.environ.get("UPDATE_DOCS"):
        COMMANDS.write_text(page(), "utf-8")

    assert COMMANDS.read_text("utf-8") == page(), "run UPDATE_DOCS=1 pytest tests/docs/test_site.py"


def test_the_asyncapi_document_is_valid_by_the_specifications_own_schema(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    packed = npm and subprocess.run(
        [npm, "pack", "--silent", "@asyncapi/specs@6"],
        cwd=tmp_path,
        capture_output=True,
        timeout=100,
        check=False,
    )
    if not packed or packed.returncode != 0:
        if os.environ.get("CI"):
            pytest.fail("npm does not bring @asyncapi/specs")
        pytest.skip("needs npm and its registry, for the schema of AsyncAPI")
    document = json.loads((ROOT / "contracts" / "asyncapi.json").read_bytes())
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        member = archive.extractfile(f"package/schemas/{document['asyncapi']}-without-$id.json")
        assert member is not None
        schema = json.load(member)

    assert [fault.message for fault in Draft7Validator(schema).iter_errors(document)] == []
