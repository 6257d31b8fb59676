"""What the deployment files name exists: commands, settings, ports, paths, users and keys."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import worker.metrics
from tests.conftest import RedisServer
from tests.deploy.conftest import DEPLOY, ROOT
from tests.process.workers import Floor
from worker import __version__
from worker.brokers.kis.facts import HOSTS, NOTICE_HOSTS
from worker.cli.app import app
from worker.health import PORT_DEFAULT
from worker.keys import GROUP, RouteKeys
from worker.settings import Mode, Settings, load_settings

KUBERNETES = DEPLOY / "kubernetes"
KEDA = DEPLOY / "kubernetes-keda"
#: Seconds that leaving may take after the drain.
AFTER_THE_DRAIN = 15
KIS_KEYS = 'environment = "paper"\napp_key = "any-key"\napp_secret = "any-secret"\n'


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def compose() -> dict[str, Any]:
    (found,) = documents(DEPLOY / "compose.yaml")
    return dict(found)


def pod() -> dict[str, Any]:
    (found,) = documents(KUBERNETES / "deployment.yaml")
    return dict(found["spec"]["template"]["spec"])


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, in order."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def said(instruction: str) -> str:
    """What the image's last such instruction says."""
    return [rest for name, rest in dockerfile() if name == instruction][-1]


def image_environ() -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(said("ENV")))


def unit() -> list[tuple[str, str]]:
    """The lines of the unit and its drop-in, as pairs."""
    text = "".join(
        (DEPLOY / "systemd" / name).read_text("utf-8") for name in ("execworker@.service", "kis.conf")
    )
    return [(line.split("=", 1)[0], line.split("=", 1)[1]) for line in text.splitlines() if "=" in line]


# --- Settings -----------------------------------------------------------------------------------------------


def _compose_environ(service: str) -> dict[str, str]:
    return image_environ() | compose()["services"][service]["environment"]


def _kubernetes_environ() -> dict[str, str]:
    return image_environ() | {one["name"]: one["value"] for one in pod()["containers"][0]["env"]}


def _systemd_environ() -> dict[str, str]:
    pairs = [value.split("=", 1) for name, value in unit() if name == "Environment"]
    return {
        name: value.replace("%i", str(PORT_DEFAULT)).replace("%d", "/run/credentials")
        for name, value in pairs
    }


def _operator_environ() -> dict[str, str]:
    """What an operator has with systemd."""
    text = (DEPLOY / "systemd/execworker").read_text("utf-8")
    return dict(re.findall(r"^export (\w+)=(\S+)$", text, re.M))


def with_kis(config: Path, folder: Path) -> Path:
    """The file with its route at KIS, whose comment was taken off."""
    uncommented = re.sub(r"^# ?(\[routes|\w+ = )", r"\1", config.read_text("utf-8"), flags=re.M)
    (folder / "all.toml").write_text(uncommented, "utf-8")
    return folder / "all.toml"


def _loaded(environ: dict[str, str], config: Path, tmp_path: Path) -> Settings:
    """The settings that a process with this environment has, its secrets in a folder of the test."""
    text = config.read_text("utf-8")
    kept = {"redis_url": "redis://worker:secret@127.0.0.1/0", "kis_paper_account": "50012345-01"}
    for folder in ("/run/secrets/execworker", "/run/secrets", "/run/credentials", "/etc/execworker/secrets"):
        text = text.replace(f'"{folder}/', f'"{tmp_path}/')
        environ = {name: value.replace(f"{folder}/", f"{tmp_path}/") for name, value in environ.items()}
    for secret in ("redis_url", "redis_url_worker", "redis_url_operator"):
        (tmp_path / secret).write_text(kept["redis_url"], "utf-8")
    (tmp_path / "kis_paper_account").write_text(kept["kis_paper_account"], "utf-8")
    (tmp_path / "kis_paper").write_text(KIS_KEYS, "utf-8")
    (tmp_path / "worker.toml").write_text(text, "utf-8")
    return load_settings(environ | {"EXECWORKER_CONFIG": str(tmp_path / "worker.toml")})


@pytest.mark.parametrize(
    ("environ", "config", "routes"),
    [
        pytest.param(_compose_environ("worker"), DEPLOY / "worker.toml", {"default"}, id="compose"),
        pytest.param(_compose_environ("operator"), DEPLOY / "worker.toml", {"default"}, id="operator"),
        pytest.param(_kubernetes_environ(), KUBERNETES / "worker.toml", {"kis_paper"}, id="kubernetes"),
    ],
)
def test_the_settings_load_and_no_money_moves_by_them(
    environ: dict[str, str], config: Path, routes: set[str], tmp_path: Path
) -> None:
    settings = _loaded(environ, config, tmp_path)

    assert set(settings.routes) == routes
    assert settings.metrics_port == PORT_DEFAULT
    assert "worker:" in settings.redis_url
    assert {route.mode for route in settings.routes.values()} == {Mode.PAPER}


@pytest.mark.parametrize(
    ("environ", "config"),
    [
        pytest.param(_compose_environ("worker"), DEPLOY / "worker.toml", id="compose"),
        pytest.param(_compose_environ("operator"), DEPLOY / "worker.toml", id="compose operator"),
        pytest.param(_kubernetes_environ(), KUBERNETES / "worker.toml", id="kubernetes"),
        pytest.param(_systemd_environ(), DEPLOY / "worker.toml", id="systemd"),
        pytest.param(_operator_environ(), DEPLOY / "worker.toml", id="systemd operator"),
    ],
)
def test_workers_and_operators_have_the_route_at_kis_and_its_keys(
    environ: dict[str, str], config: Path, tmp_path: Path
) -> None:
    settings = _loaded(environ, with_kis(config, tmp_path), tmp_path)

    from worker.assembly import build_adapter
    from worker.clock import ManualClock

    adapter = build_adapter(settings.routes["kis_paper"], ManualClock())
    assert adapter is not None and adapter.broker_id == "kis"
    assert {route.mode for route in settings.routes.values()} == {Mode.PAPER}


def test_with_compose_whoever_may_cancel_at_kis_has_its_keys() -> None:
    (more,) = documents(DEPLOY / "compose.kis.yaml")
    configured = {
        name
        for name, one in compose()["services"].items()
        if "EXECWORKER_CONFIG" in one.get("environment", {})
    }
    (read,) = re.findall(r'credentials = "/run/secrets/(\w+)"', (DEPLOY / "worker.toml").read_text("utf-8"))

    assert more["services"] == {name: {"secrets": [read]} for name in configured}
    assert configured == {"worker", "operator"}
    assert more["secrets"] == {read: {"file": f"./secrets/{read}"}}


def test_with_systemd_every_file_that_is_read_is_put_there_by_the_page() -> None:
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    texts = [path.read_text("utf-8") for path in sorted((DEPLOY / "systemd").iterdir())]
    read = {path for text in texts for path in re.findall(r"/etc/execworker/[\w./]*\w", text)}

    installed = set(re.findall(r"^install .* (/\S+)", page, re.M))

    assert read == installed & read and "/etc/execworker/secrets/redis_url_operator" in read
    assert {"/usr/local/bin/execworker", "/etc/systemd/system/execworker@.service"} <= installed
    # The worker's own password is nobody else's, and a dynamic user takes the name of the unit for its group.
    assert "install -m 0600 deploy/secrets/redis_url_worker /etc/execworker/secrets/redis_url" in page
    assert "groupadd --system execworker-operators\n" in page


# --- Commands -----------------------------------------------------------------------------------------------


def parsed(arguments: list[str]) -> str:
    """The verb, when the command line takes it with its flags."""
    done = CliRunner().invoke(app, [*arguments, "--help"])
    assert done.exit_code == 0, done.output
    return arguments[0]


def _commands() -> Iterator[Any]:
    container = pod()["containers"][0]
    services = compose()["services"]
    start = next(value for name, value in unit() if name == "ExecStart")
    types = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text("utf-8").splitlines())
    yield pytest.param([*json.loads(said("ENTRYPOINT")), *json.loads(said("CMD"))], "run", id="image")
    yield pytest.param([*container["command"], *container["args"]], "run", id="kubernetes")
    yield pytest.param(["worker", *services["operator"]["command"]], "status", id="operator")
    yield pytest.param(["worker", *start.split()[1:]], "run", id="systemd")
    for name, verb in (("worker", "run"), ("deadman", "deadman")):
        yield pytest.param(types[name].removeprefix("exec python -m ").split(), verb, id=f"procfile {name}")


@pytest.mark.parametrize(("command", "verb"), list(_commands()))
def test_the_command_is_one_of_ours(command: list[str], verb: str) -> None:
    assert command[0] == "worker"
    assert parsed(command[1:]) == verb


def test_signals_reach_the_worker_with_no_shell_in_between() -> None:
    assert said("ENTRYPOINT").startswith("[") and said("CMD").startswith("[")
    types = (ROOT / "Procfile").read_text("utf-8").splitlines()
    assert all(re.fullmatch(r"\w+: exec python -m worker \w+", one) for one in types)
    assert pod()["containers"][0]["command"] == ["worker"]
    assert said("STOPSIGNAL") == "SIGTERM"


@pytest.mark.process
@pytest.mark.real_redis
def test_the_health_check_of_the_image_tells_a_worker_from_none(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    _, _, command = said("HEALTHCHECK").partition("CMD ")
    python, *arguments = json.loads(command)
    floor = Floor(redis_server, tmp_path)
    try:
        started = floor.worker()
        environ = os.environ | {"EXECWORKER_METRICS_PORT": str(started.port)}
        pages = {path: started.get(path)[0] for path in _named_paths()}
        alive = subprocess.run([python, *arguments], env=environ, capture_output=True, check=False)
        started.kill()
        dead = subprocess.run([python, *arguments], env=environ, capture_output=True, check=False)
    finally:
        floor.close()

    assert (alive.returncode, dead.returncode) == (0, 1)
    assert pages == {"/livez": 200, "/metrics": 200, "/readyz": pages["/readyz"]}
    assert pages["/readyz"] in (200, 503)


def _named_paths() -> set[str]:
    text = (KUBERNETES / "deployment.yaml").read_text("utf-8")
    return set(re.findall(r"path: (/\w+)", text))


# --- Ports --------------------------------------------------------------------------------------------------


def test_every_file_means_the_same_port() -> None:
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    container = pod()["containers"][0]
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    (prometheus,) = documents(DEPLOY / "prometheus/prometheus.yml")
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}

    assert said("EXPOSE") == image_environ()["EXECWORKER_METRICS_PORT"] == str(PORT_DEFAULT)
    assert container["ports"] == [{"name": "http", "containerPort": PORT_DEFAULT}]
    assert annotations["prometheus.io/port"] == str(PORT_DEFAULT)
    (found,) = jobs["execworker"]["dns_sd_configs"]
    assert found["port"] == PORT_DEFAULT
    assert found["names"] == ["worker"] and "worker" in compose()["services"]


def test_the_network_policy_lets_out_to_redis_and_to_kis_and_names_what_else_may_be_needed() -> None:
    (policy,) = documents(KUBERNETES / "networkpolicy.yaml")
    out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    scaler, _ = documents(KEDA / "scaledobject.yaml")
    address = scaler["spec"]["triggers"][0]["metadata"]["address"]

    assert {int(url.rpartition(":")[2]) for url in HOSTS.values()} | {53, 6379} == out
    text = re.sub(r"# (- \{protocol)", r"\1", (KUBERNETES / "networkpolicy.yaml").read_text("utf-8"))
    opened = yaml.safe_load(text)["spec"]["egress"][-1]["ports"]
    named = {int(url.rpartition(":")[2]) for url in (*HOSTS.values(), *NOTICE_HOSTS.values())}
    assert {one["port"] for one in opened} == named | {443}
    assert address in (KUBERNETES / "secret.example.yaml").read_text("utf-8")
    assert address.endswith(":6379")


# --- Paths, users, keys -------------------------------------------------------------------------------------


def _kept_by_dockerignore(path: str) -> bool:
    kept = True
    for rule in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if rule and not rule.startswith("#"):
            name = rule.removeprefix("!")
            if fnmatch(path, name) or path.startswith(f"{name}/"):
                kept = rule.startswith("!")
    return kept


def test_what_the_image_copies_is_there_and_is_let_through() -> None:
    copied = [
        word
        for name, rest in dockerfile()
        if name == "COPY" and "--from" not in rest
        for word in rest.split()[:-1]
    ]

    assert copied == ["pyproject.toml", "README.md", "LICENSE", "contracts", "worker"]
    assert all((ROOT / path).exists() and _kept_by_dockerignore(path) for path in copied)
    assert not any(_kept_by_dockerignore(path) for path in ("deploy/secrets/redis_users", ".git", "tests"))
    assert _kept_by_dockerignore("worker/ledger/lua/claim.lua")


def test_an_installed_copy_has_every_package_and_every_file_that_is_no_python() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages, data = set(tool["packages"]), tool["package-data"]
    files = [
        path
        for top in ("contracts", "worker")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    homes = {path.parent for path in files if path.suffix == ".py"}

    assert {".".join(home.relative_to(ROOT).parts) for home in homes} == packages
    missing = [path for path in files if path.suffix != ".py" and not _is_data(path, packages, data)]
    assert missing == []


def _is_data(path: Path, packages: set[str], data: dict[str, list[str]]) -> bool:
    home = path.parent
    while ".".join(home.relative_to(ROOT).parts) not in packages:
        home = home.parent
    rules = data.get(".".join(home.relative_to(ROOT).parts), [])
    return any(path.relative_to(home).match(rule) for rule in rules)


def test_compose_mounts_only_what_is_there_or_what_the_script_makes(tmp_path: Path) -> None:
    found = compose()
    subprocess.run(["sh", DEPLOY / "secrets.sh", tmp_path], check=True, capture_output=True)
    mounts = [
        mount.split(":")
        for service in found["services"].values()
        for mount in service.get("volumes", [])
        if mount.startswith(".")
    ]

    assert all((DEPLOY / source).exists() and options == ["ro"] for source, _, *options in mounts)
    assert all((tmp_path / Path(one["file"]).name).is_file() for one in found["secrets"].values())
    assert all(one["file"].startswith("./secrets/") for one in found["secrets"].values())
    assert "/secrets/" in (DEPLOY / ".gitignore").read_text("utf-8").split()
    build = found["services"]["worker"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
    used = {one for service in found["services"].values() for one in service.get("secrets", [])}
    assert used == set(found["secrets"])


def test_a_kustomization_names_every_manifest_and_the_version_that_this_is() -> None:
    for folder, bases in ((KUBERNETES, set()), (KEDA, {KUBERNETES})):
        (found,) = documents(folder / "kustomization.yaml")
        named = {(folder / one).resolve() for one in found["resources"]}
        there = {path for path in folder.glob("*.yaml") if ".example" not in path.name}
        assert named == there - {folder / "kustomization.yaml"} | bases

    (base,) = documents(KUBERNETES / "kustomization.yaml")
    assert base["images"][0]["name"] == pod()["containers"][0]["image"]
    assert base["images"][0]["newTag"] == __version__
    (generated,) = base["configMapGenerator"]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert generated["files"] == ["worker.toml"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]


def test_no_kustomization_builds_on_a_folder_that_it_lies_in() -> None:
    made = sorted(DEPLOY.rglob("kustomization.yaml"))
    named = {
        path.parent: {(path.parent / one).resolve() for one in documents(path)[0]["resources"]}
        for path in made
    }

    # "cycle detected: candidate root … contains visited root …"
    assert KUBERNETES in named and KEDA in named
    assert [home for home, bases in named.items() if bases & {home, *home.parents}] == []


def test_the_overlay_takes_away_a_number_of_workers_that_is_there() -> None:
    (overlay,) = documents(KEDA / "kustomization.yaml")
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    (one,) = overlay["patches"]

    assert yaml.safe_load(one["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]
    assert one["target"] == {"kind": deployment["kind"], "name": deployment["metadata"]["name"]}
    assert "replicas" in deployment["spec"]


def test_the_files_that_the_pod_reads_are_keys_of_its_secret() -> None:
    (secret,) = documents(KUBERNETES / "secret.example.yaml")
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    (mounted,) = [one for one in pod()["containers"][0]["volumeMounts"] if one["name"] == "secrets"]
    read = re.findall(rf'"{mounted["mountPath"]}/(\w+)"', (KUBERNETES / "worker.toml").read_text("utf-8"))

    assert volumes["secrets"]["secret"]["secretName"] == secret["metadata"]["name"]
    assert set(read) == set(secret["stringData"])
    assert tomllib.loads(secret["stringData"]["kis_paper"]).keys() == tomllib.loads(KIS_KEYS).keys()


def test_the_scaler_counts_what_a_route_of_ours_has_not_read() -> None:
    scaler, login = documents(KEDA / "scaledobject.yaml")
    spec = scaler["spec"]
    (trigger,) = spec["triggers"]
    routes = tomllib.loads((KUBERNETES / "worker.toml").read_text("utf-8"))["routes"]

    # What KEDA 2.x takes; there is no schema of it to be had that knows a slip (2026-11).
    assert set(spec) == {
        *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"),
        *("fallback", "advanced", "triggers"),
    }
    assert set(trigger["metadata"]) == {"address", "enableTLS", "stream", "consumerGroup", "lagCount"}
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    assert trigger["metadata"]["stream"] in {RouteKeys(route).intents for route in routes}
    assert trigger["metadata"]["consumerGroup"] == GROUP
    assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
    assert spec["scaleTargetRef"]["name"] == documents(KUBERNETES / "deployment.yaml")[0]["metadata"]["name"]
    assert spec["fallback"]["replicas"] >= 2 and spec["minReplicaCount"] == 2


def test_grafana_reads_the_prometheus_beside_it() -> None:
    (sources,) = documents(DEPLOY / "grafana/provisioning/datasources/execworker.yaml")
    (boards,) = documents(DEPLOY / "grafana/provisioning/dashboards/execworker.yaml")
    service = compose()["services"]["grafana"]
    (mount,) = [one.split(":") for one in service["volumes"] if one.startswith(".")]

    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    assert compose()["services"]["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert service["environment"]["GF_PATHS_PROVISIONING"] == f"{mount[1]}/provisioning"
    assert boards["providers"][0]["options"]["path"] == f"{mount[1]}/dashboards"
    assert (DEPLOY / mount[0] / "provisioning").is_dir()


# --- Draining and hardening ---------------------------------------------------------------------------------


def test_nobody_kills_a_worker_before_its_drain_is_over(tmp_path: Path) -> None:
    found = compose()["services"]["worker"]
    lines = dict(unit())
    drains = {
        "compose": (found["stop_grace_period"], _compose_environ("worker")),
        "kubernetes": (f"{pod()['terminationGracePeriodSeconds']}s", _kubernetes_environ()),
        "systemd": (f"{lines['TimeoutStopSec']}s", _systemd_environ()),
    }

    for patience, environ in drains.values():
        drain = float(environ["EXECWORKER_DRAIN_TIMEOUT"])
        assert drain == Settings.model_fields["drain_timeout"].default
        assert float(patience.removesuffix("s")) >= drain + AFTER_THE_DRAIN


def test_redis_stops_after_the_workers() -> None:
    assert "redis" in compose()["services"]["worker"]["depends_on"]


def test_probes_that_restart_ask_for_nobody_else_and_readiness_does_not_ask_the_guard() -> None:
    container = pod()["containers"][0]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}

    assert asked == {
        "startup": {"path": "/livez", "port": "http"},
        "liveness": {"path": "/livez", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }


def test_the_pod_is_what_a_restricted_namespace_takes() -> None:
    (namespace,) = documents(KUBERNETES / "namespace.yaml")
    spec, (container,) = pod(), pod()["containers"]

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind for volume in spec["volumes"] for kind in volume} <= {
        *("name", "configMap", "secret", "emptyDir"),
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["automountServiceAccountToken"] is False
    assert said("USER") == "{runAsUser}:{runAsGroup}".format(**spec["securityContext"]) == "10001:10001"


def test_selectors_find_the_pods() -> None:
    (deployment,) = documents(KUBERNETES / "deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (budget,) = documents(KUBERNETES / "pdb.yaml")
    (policy,) = documents(KUBERNETES / "networkpolicy.yaml")
    (account,) = documents(KUBERNETES / "serviceaccount.yaml")

    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels
    assert pod()["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize("service", ["worker", "operator", "redis", "prometheus", "grafana"])
def test_every_container_of_compose_is_hardened_and_reachable_from_this_machine_only(service: str) -> None:
    found = compose()["services"][service]

    assert found["read_only"] is True and found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in found.get("ports", []))


# --- The page -----------------------------------------------------------------------------------------------


def test_every_name_on_the_page_exists() -> None:
    page = (ROOT / "docs/deploy.md").read_text("utf-8")
    settings = (ROOT / "docs/settings.md").read_text("utf-8")

    paths = set(re.findall(r"\bdeploy/[\w./@-]*\w", page))
    made = {path for path in paths if path.startswith("deploy/secrets/")}
    assert {path for path in paths - made if not (ROOT / path).exists()} == set()
    script = (DEPLOY / "secrets.sh").read_text("utf-8")
    users = re.search(r"for user in (.*);", script)
    assert users is not None
    known = {f"redis_url_{user}" for user in users[1].split()} | {"grafana_password", "redis_users"}
    # The last one is the operator's own.
    assert {Path(path).name for path in made} <= known | {"kis_paper"}
    variables = {
        re.sub(r"__KIS_PAPER__|__DEFAULT__", "__<route>__", name.removesuffix("_FILE"))
        for name in re.findall(r"EXECWORKER_\w+", page)
    }
    assert {name for name in variables if f"`{name}" not in settings} == set()
    assert set(re.findall(r"execworker_\w+", page)) <= set(
        re.findall(r"execworker_\w+", worker.metrics.metrics_table())
    )
    for line in re.findall(r"^(?:docker compose .* operator|worker|execworker) ([a-z].*)$", page, re.M):
        parsed(shlex.split(line, comments=True))
