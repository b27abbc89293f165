"""docker/compose.yaml, as far as a machine without compose can check it: its form, its names, its settings, its health
checks, and that no secret stands in it. tests/system/test_scaled_out.py runs what it describes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prefect.settings.base import PrefectBaseSettings
from prefect.settings.models.root import Settings
from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
from prefect_redis.client import RedisMessagingSettings
from pydantic import AliasChoices
from sqlalchemy import make_url

from benchmarks import compose
from benchmarks.deploy import free_port
from orchestrator import pipeline
from orchestrator.secret_scan import scan_text, scan_yaml

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "docker"
SCHEMA = json.loads((REPOSITORY / "tests/data/compose-spec.json").read_text(encoding="utf-8"))
DOCUMENT = compose.document()
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
FILLED_IN = compose.services(compose.VARIABLES)
REQUIRED = {"POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING"}
WORKERS = ("worker-process", "worker-docker")


# --- form and names --------------------------------------------------------------------------------------


def test_it_fits_the_schema_of_the_compose_specification() -> None:
    faults = jsonschema.Draft202012Validator(SCHEMA).iter_errors(DOCUMENT)

    assert [fault.message for fault in faults] == []


def test_compose_takes_it_where_there_is_compose(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no docker compose here")
    variables = tmp_path / ".env"
    variables.write_text("".join(f"{name}='{value}'\n" for name, value in compose.VARIABLES.items()))

    command = [docker, "compose", "--file", str(compose.FILE), "--env-file", str(variables), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_there(name: str) -> None:
    service = SERVICES[name]

    assert set(service.get("networks", ())) <= set(DOCUMENT["networks"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    for source in (volume.partition(":")[0] for volume in service.get("volumes", ())):
        assert source in DOCUMENT["volumes"] or "$" in source or (FOLDER / source).is_file(), source
    if "build" in service:
        assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_who_is_waited_for_says_when_it_is_ready_or_comes_to_an_end() -> None:
    waits = {
        (name, condition["condition"]) for each in SERVICES.values() for name, condition in dependencies(each).items()
    }

    assert {name for name, condition in waits if condition == "service_completed_successfully"} == {"migrate"}
    for name, condition in waits - {("migrate", "service_completed_successfully")}:
        assert (condition, "healthcheck" in SERVICES[name]) == ("service_healthy", True), name


def test_all_but_the_one_that_ends_are_checked_and_come_back() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"migrate"}
    assert {name for name, service in SERVICES.items() if service["restart"] != "unless-stopped"} == {"migrate"}


def dependencies(service: dict[str, Any]) -> dict[str, dict[str, str]]:
    return service.get("depends_on", {})


# --- settings --------------------------------------------------------------------------------------------


def test_every_setting_of_prefect_is_one_that_it_reads() -> None:
    known = {
        name
        for model in (Settings, RedisMessagingSettings, RedisWorkerCleanupQueueSettings)
        for name in names_of_settings(model)
    }
    named = {name for each in FILLED_IN.values() for name in each.environment if name.startswith("PREFECT_")}

    assert {"PREFECT_API_URL", "PREFECT_SERVER_DOCKET_URL", "PREFECT_REDIS_MESSAGING_HOST"} <= named
    assert named - known == set()


def names_of_settings(model: type[PrefectBaseSettings]) -> Iterator[str]:
    """The environment variables that a model of settings and those below it are read from."""
    prefix = model.model_config.get("env_prefix", "")
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, PrefectBaseSettings):
            yield from names_of_settings(field.annotation)
        elif isinstance(field.validation_alias, AliasChoices):
            yield from (choice.upper() for choice in field.validation_alias.choices if isinstance(choice, str))
        else:
            yield f"{prefix}{name}".upper()


def test_prefect_reads_them_as_they_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FILLED_IN["server"].environment.items():
        monkeypatch.setenv(name, value)

    read = Settings().server

    assert read.database.connection_url and read.api.auth_string
    address = make_url(read.database.connection_url.get_secret_value())
    assert (address.host, address.password) == ("postgres", compose.VARIABLES["POSTGRES_PASSWORD"])
    assert (
        read.api.auth_string and read.api.auth_string.get_secret_value() == compose.VARIABLES["PREFECT_API_AUTH_STRING"]
    )
    assert (read.database.migrate_on_start, read.register_blocks_on_start) == (False, False)


def test_what_is_kept_in_redis_is_kept_by_modules_that_there_are() -> None:
    modules = {value for value in FILLED_IN["server"].environment.values() if value.startswith("prefect_redis.")}

    assert len(modules) == 4
    assert all(importlib.util.find_spec(module) for module in modules)


def test_api_services_and_migration_agree_about_everything() -> None:
    assert FILLED_IN["server"].environment == FILLED_IN["services"].environment == FILLED_IN["migrate"].environment


def test_images_have_the_version_of_prefect_that_is_tested() -> None:
    (tested,) = re.findall(r"^prefect==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    image = f"prefecthq/prefect:{tested}-python3.11"

    assert {SERVICES[name]["image"] for name in ("migrate", "server", "services")} == {image}
    assert f"\nFROM {image}\n" in (FOLDER / "worker.Dockerfile").read_text()
    assert {SERVICES[name]["image"] for name in WORKERS} == {f"orchestrator-worker:{tested}"}


def test_the_process_worker_serves_the_pool_of_production() -> None:
    environment = pipeline.load_settings(REPOSITORY, "production").environment

    pool = FILLED_IN["worker-process"].command[FILLED_IN["worker-process"].command.index("--pool") + 1]

    assert pool == environment.work_pools["python"].name


# --- health checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "port"), [("server", "4200"), *((name, "8080") for name in WORKERS)])
def test_the_health_check_of_what_answers_requests_fails_unless_all_is_well(name: str, port: str) -> None:
    with answering(200) as there:
        assert checked(name, {port: there}) == 0
    with answering(503) as there:
        assert checked(name, {port: there}) != 0
    assert checked(name, {port: free_port()}) != 0


@pytest.mark.parametrize(
    ("name", "port", "program"), [("postgres", "5432", "pg_isready"), ("redis", "6379", "redis-cli")]
)
def test_the_health_check_of_a_database_fails_where_there_is_none(name: str, port: str, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} here")

    assert checked(name, {port: free_port()}) != 0


def test_the_health_check_of_the_services_fails_where_nothing_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DOCKET_URL", "memory://")  # as a Redis to which nobody has written

    assert checked("services", {}) == 1


def checked(name: str, ports: dict[str, int]) -> int:
    """The exit code of a service's health check, on this machine."""
    command = compose.on_this_machine(FILLED_IN[name], ports).health
    return subprocess.run(command, capture_output=True, timeout=60).returncode


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of something that answers each request with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


# --- secrets and doors -----------------------------------------------------------------------------------


def test_no_secret_stands_in_it() -> None:
    text = compose.FILE.read_text(encoding="utf-8")
    secrets = {
        key: value
        for section in (DOCUMENT["x-prefect-server"], DOCUMENT["x-prefect-client"], SERVICES["postgres"]["environment"])
        for key, value in section.items()
        if key.endswith(("PASSWORD", "AUTH_STRING"))
    }

    assert scan_yaml(text) == ()
    assert scan_text((FOLDER / ".env.example").read_text(encoding="utf-8")) == ()
    assert len(secrets) == 4
    assert all(re.fullmatch(r"\$\{\w+:\?[^}]+\}", value) for value in secrets.values())


def test_a_password_in_it_would_be_found() -> None:
    text = compose.FILE.read_text(encoding="utf-8")

    found = scan_yaml(re.sub(r"\$\{POSTGRES_PASSWORD:[^}]*\}", "fTq7zR2mXw9LbK4s", text))

    assert len(found) == text.count("${POSTGRES_PASSWORD:") == 2


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_without_a_secret_it_does_not_start(name: str) -> None:
    with pytest.raises(compose.MissingVariable, match=f"{name}: set it in docker/.env"):
        compose.services({**compose.VARIABLES, name: ""})


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    written = compose.FILE.read_text(encoding="utf-8")
    example = dict(re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (FOLDER / ".env.example").read_text(), re.MULTILINE))

    assert set(example) == set(re.findall(r"\$\{(\w+)", written))
    assert {name for name, value in example.items() if not value} == REQUIRED
    for name in set(example) - REQUIRED:
        assert f"${{{name}:-{example[name]}}}" in written


def test_git_ignores_the_secrets() -> None:
    assert subprocess.run(["git", "check-ignore", "--quiet", "docker/.env"], cwd=REPOSITORY).returncode == 0


def test_the_databases_are_reached_by_the_server_alone() -> None:
    inside = {name for name, service in SERVICES.items() if "backend" in service["networks"]}

    assert DOCUMENT["networks"]["backend"]["internal"] is True
    assert inside == {"postgres", "redis", "migrate", "server", "services"}
    assert {name for name in ("postgres", "redis") if SERVICES[name]["networks"] != ["backend"]} == set()


def test_one_port_is_open_to_this_machine_and_one_service_has_the_engine() -> None:
    ports = {name: compose.filled_in(service["ports"], {}) for name, service in SERVICES.items() if "ports" in service}
    with_socket = {name for name, service in SERVICES.items() if "docker.sock" in str(service.get("volumes"))}

    assert ports == {"server": ["127.0.0.1:4200:4200"]}
    assert with_socket == {"worker-docker"}
