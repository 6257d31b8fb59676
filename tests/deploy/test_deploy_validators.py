"""The validators that exist for each format find nothing, and do find a slip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import DEPLOY, ROOT, tool

MANIFESTS = sorted((DEPLOY / "kubernetes").glob("[!k]*.yaml"))
_YAML_RULES = (
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, "
    "braces: {max-spaces-inside: 0}, comments: {min-spaces-from-content: 1}}}"
)


def checked(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a validator; one that is not there skips the test, or fails it in CI."""
    program, *arguments = command
    return subprocess.run(
        [tool(str(program)), *arguments],
        env=os.environ | environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def accepts(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_yaml_file_is_tidy() -> None:
    accepts(checked("yamllint", "--strict", "-d", _YAML_RULES, DEPLOY))


def test_the_dockerfile_passes_its_linter() -> None:
    accepts(checked("hadolint", DEPLOY / "Dockerfile"))


def test_the_compose_file_fits_the_schema_which_knows_a_slip(tmp_path: Path) -> None:
    compose = DEPLOY / "compose.yaml"
    slip = tmp_path / "compose.yaml"
    slip.write_text(compose.read_text("utf-8").replace("stop_grace_period", "stop_grace"), "utf-8")
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")

    accepts(checked(*schema, compose, DEPLOY / "compose.kis.yaml"))
    assert checked(*schema, slip).returncode == 1


def test_the_manifests_fit_the_schemas_of_kubernetes_which_know_a_slip(tmp_path: Path) -> None:
    slip = tmp_path / "deployment.yaml"
    text = (DEPLOY / "kubernetes/deployment.yaml").read_text("utf-8")
    slip.write_text(text.replace("livenessProbe", "livenesProbe"), "utf-8")

    done = checked("kubernetes-validate", "--strict", *MANIFESTS)

    accepts(done)
    assert done.stdout.count("passed") == len(MANIFESTS) == 6, done.stdout + done.stderr
    assert checked("kubernetes-validate", "--strict", slip).returncode == 1


def test_prometheus_takes_its_settings() -> None:
    accepts(checked("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml"))


def test_honcho_takes_the_procfile() -> None:
    accepts(checked("honcho", "--procfile", ROOT / "Procfile", "check"))


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with its drop-in, as installed; where the worker would be stands this one."""
    text = (DEPLOY / "systemd/execworker@.service").read_text("utf-8")
    installed = tmp_path / "execworker@.service"
    installed.write_text(
        text.replace("/opt/execworker/bin/worker", str(Path(sys.executable).parent / "worker")), "utf-8"
    )
    (tmp_path / "execworker@.service.d").mkdir()
    shutil.copy(DEPLOY / "systemd/kis.conf", tmp_path / "execworker@.service.d")
    return installed


def verify(unit: Path) -> subprocess.CompletedProcess[str]:
    return checked(
        "systemd-analyze",
        "verify",
        unit.with_name("execworker@9464.service"),
        SYSTEMD_UNIT_PATH=f"{unit.parent}:/lib/systemd/system",
    )


def test_systemd_takes_the_unit_and_says_nothing(unit: Path) -> None:
    done = verify(unit)

    accepts(done)
    assert done.stdout + done.stderr == ""


def test_systemd_would_name_a_slip_in_the_unit_and_in_its_drop_in(unit: Path) -> None:
    unit.write_text(unit.read_text("utf-8").replace("ProtectSystem=", "ProtectSytem="), "utf-8")
    drop_in = unit.parent / "execworker@.service.d/kis.conf"
    drop_in.write_text(drop_in.read_text("utf-8").replace("LoadCredential=", "LoadCredentials="), "utf-8")

    said = verify(unit).stderr

    assert "ProtectSytem" in said and "LoadCredentials" in said


def test_the_unit_exposes_next_to_nothing_of_the_machine(unit: Path) -> None:
    accepts(checked("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", unit))


@pytest.mark.parametrize("script", ["deploy/secrets.sh", "deploy/systemd/execworker", ".ci/run"])
def test_the_shell_can_read_the_scripts(script: str) -> None:
    shell = "bash" if script == ".ci/run" else "sh"

    accepts(checked(shell, "-n", ROOT / script))
