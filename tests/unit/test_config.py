"""Project settings and environments: what they mean, and how their faults are told."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from textwrap import dedent

import prefect
import pytest
from pydantic_core import to_jsonable_python

from orchestrator.config import (
    ConfigurationManager,
    EnvironmentConfig,
    ImageBuildConfig,
    ImagesConfig,
    ProjectConfig,
    fill,
    merge,
)
from orchestrator.errors import ConfigurationError, Fault
from orchestrator.model import ValidationError
from orchestrator.pipeline import discover_flows, load_settings, read_settings
from orchestrator.rules import RULES
from tests.unit.builders import places, write_files
from tests.unit.checking import all_faults, faults_of, marked

POOLS = """
    work_pools:
      python:
        name: processes
        type: process
"""


def read(root: Path, base: str = "", overlay: str = "{}", env: str = "development") -> EnvironmentConfig:
    """The environment that base.yaml and <env>.yaml give."""
    write_files(root, {"environments/base.yaml": base, f"environments/{env}.yaml": overlay})
    return ConfigurationManager(root).load_environment_config(env)


def faults(root: Path, base: str = "", overlay: str = "{}") -> tuple[Fault, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(root, base, overlay)
    assert caught.value.exit_code == 2
    return caught.value.faults


def project(root: Path, toml: str) -> ProjectConfig:
    write_files(root, {"pyproject.toml": toml})
    return ConfigurationManager(root).load_project()


def project_faults(root: Path, toml: str) -> tuple[Fault, ...]:
    with pytest.raises(ConfigurationError) as caught:
        project(root, toml)
    return caught.value.faults


class TestMerging:
    def test_mappings_merge_key_by_key(self, tmp_path: Path) -> None:
        found = read(tmp_path, POOLS, "work_pools: {python: {name: other}}")
        assert (found.work_pools["python"].name, found.work_pools["python"].type) == ("other", "process")

    def test_lists_are_replaced(self, tmp_path: Path) -> None:
        assert read(tmp_path, "select: [a/*, b/*]", "select: [c/*]").select == ("c/*",)

    def test_scalars_are_replaced(self, tmp_path: Path) -> None:
        assert read(tmp_path, "policy: {prune: true}", "policy: {prune: false}").policy.prune is False

    def test_what_only_the_base_says_holds(self, tmp_path: Path) -> None:
        assert read(tmp_path, "default_parameters: {rows: 5}", "select: [a/*]").default_parameters == {"rows": 5}

    def test_a_missing_base_is_fine(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"environments/staging.yaml": "docker_registry: r.example"})
        assert ConfigurationManager(tmp_path).load_environment_config("staging").docker_registry == "r.example"

    def test_neither_side_is_changed(self) -> None:
        base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
        assert merge(base, over) == {"a": {"b": 1, "c": 2}}
        assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})


class TestDefaults:
    def test_an_empty_environment(self, tmp_path: Path) -> None:
        found = read(tmp_path)
        assert found == EnvironmentConfig(name="development")
        assert (found.select, found.templates, found.work_pools) == (("*",), {}, {})
        assert found.policy.prune is True

    def test_the_deployer_is_named_after_the_environment(self, tmp_path: Path) -> None:
        assert read(tmp_path, env="staging").deployer_name == "staging"

    def test_the_deployer_may_have_a_name(self, tmp_path: Path) -> None:
        assert read(tmp_path, overlay="deployer: {name: keeper}").deployer_name == "keeper"

    def test_without_environment_files_every_name_gives_the_defaults(self, tmp_path: Path) -> None:
        found = ConfigurationManager(tmp_path).load_environment_config("anything")
        assert found == EnvironmentConfig(name="anything")

    def test_without_environment_files_a_warning_says_what_holds(self, tmp_path: Path) -> None:
        warnings = load_settings(tmp_path, "development").problems
        assert [(each.code, each.severity) for each in warnings] == [("CFG007", "warning")]
        assert warnings[0].file_path == "environments/development.yaml"

    def test_with_environment_files_there_is_no_warning(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"environments/development.yaml": "{}"})
        assert load_settings(tmp_path, "development").problems == ()

    def test_a_global_limit_may_be_written_as_a_number(self, tmp_path: Path) -> None:
        found = read(tmp_path, "global_concurrency_limits: {a: 3, b: {limit: 4, slot_decay_per_second: 0.5}}")
        limits = {
            name: (limit.limit, limit.slot_decay_per_second) for name, limit in found.global_concurrency_limits.items()
        }
        assert limits == {"a": (3, None), "b": (4, 0.5)}

    def test_whole_cpus_may_be_written_as_a_number(self, tmp_path: Path) -> None:
        assert read(tmp_path, "resource_limits: {cpu: 2, memory: 512Mi}").resource_limits.cpu == "2"


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("written", "line", "nearest"),
        [
            ("wrok_pools: {}", 1, "work_pools"),
            ("policy:\n  prunne: true", 2, "prune"),
            ("work_pools:\n  python:\n    nmae: x\n    name: x\n    type: process", 3, "name"),
            ("work_pools:\n  python:\n    name: x\n    type: process\n    queues: {q: {priorty: 1}}", 5, "priority"),
            ("templates:\n  python:\n    schedules:\n      - cron: '0 4 * * *'\n        slugg: n", 5, "slug"),
            ("deployments:\n  'etl-[ab]/*':\n    pausd: true", 3, "paused"),
            ("deployer:\n  schedule:\n    crn: '0 4 * * *'\n    cron: '0 4 * * *'", 3, "cron"),
            ("global_concurrency_limits:\n  api: {limit: 1, slot_decay: 1}", 2, "slot_decay_per_second"),
            ("global_concurrency_limit: {api: 1}", 1, "global_concurrency_limits"),
        ],
    )  # fmt: skip
    def test_at_every_depth_with_the_nearest_known_key(
        self, tmp_path: Path, written: str, line: int, nearest: str
    ) -> None:
        (fault,) = faults(tmp_path, written)
        assert places((fault,)) == [("CFG002", f"environments/base.yaml:{line}")]
        assert fault.remediation.startswith(f"Did you mean {nearest!r}?")

    def test_the_file_that_holds_it_is_named(self, tmp_path: Path) -> None:
        found = faults(tmp_path, POOLS + "    lcoal: 1", "policy:\n  prune: true\n  trehshold: 1")
        assert places(found) == [("CFG002", "environments/base.yaml:5"), ("CFG002", "environments/development.yaml:3")]

    def test_the_known_keys_are_listed(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "policy: {zzz: 1}")
        assert fault.remediation == "Known: delete_limit, delete_share, keep_revisions, prune."

    @pytest.mark.parametrize("section", ["work_pools", "templates"])
    def test_an_unknown_kind_of_pool(self, tmp_path: Path, section: str) -> None:
        (fault,) = faults(tmp_path, f"{section}:\n  pyton:\n    name: x\n    type: process")
        assert places((fault,)) == [("CFG008", "environments/base.yaml:2")]
        assert fault.message == f"Unknown kind 'pyton' under {section}."
        assert fault.remediation.startswith("Did you mean 'python'? The kinds are python and docker")

    def test_what_stands_beside_an_unknown_kind_is_checked_too(self, tmp_path: Path) -> None:
        text = "work_pools:\n  lambda: {name: x}\n  python: {nmae: x, name: x, type: process}\nplicy: {}"
        codes = [(code, place.rpartition(":")[2]) for code, place in places(faults(tmp_path, text))]
        assert codes == [("CFG008", "2"), ("CFG002", "3"), ("CFG002", "4")]

    @pytest.mark.parametrize("written", ["work_pools: [a]", "work_pools: 5", "templates: text", "work_pools: {5: {}}"])
    def test_no_mapping_of_kinds(self, tmp_path: Path, written: str) -> None:
        (fault,) = faults(tmp_path, written)
        assert fault.code == ("CFG008" if "5:" in written else "CFG003")

    def test_the_name_is_the_files(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, overlay="select: ['*']\nname: other")
        assert places((fault,)) == [("CFG002", "environments/development.yaml:2")]


class TestWrongValues:
    @pytest.mark.parametrize(
        ("written", "line"),
        [
            ("select: all", 1),
            ("policy:\n  prune: 'yes'", 2),
            ("policy:\n  delete_share: 3", 2),
            ("concurrency_limits:\n  database: 0", 2),
            ("concurrency_limits:\n  database: three", 2),
            ("global_concurrency_limits:\n  api: 0", 2),
            ("global_concurrency_limits:\n  api: many", 2),
            ("global_concurrency_limits:\n  api: {slot_decay_per_second: 1}", 2),
            ("global_concurrency_limits:\n  api:\n    limit: 1\n    slot_decay_per_second: -1", 4),
            ("prefect_api_url: localhost:4200", 1),
            ("resource_limits:\n  memory: lots", 2),
            ("image_pull_policy: Sometimes", 1),
            ("deployer:\n  scheduled_mode: maybe", 2),
            ("templates:\n  python:\n    parameters: '{flow.name}'", 3),
        ],
    )
    def test_are_faults_with_file_and_line(self, tmp_path: Path, written: str, line: int) -> None:
        assert ("CFG003", f"environments/base.yaml:{line}") in places(faults(tmp_path, written))

    def test_in_the_overlay(self, tmp_path: Path) -> None:
        found = faults(tmp_path, "policy: {prune: true}", "select: ['*']\npolicy: {prune: 1}")
        assert places(found) == [("CFG003", "environments/development.yaml:2")]

    def test_a_missing_required_key(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "work_pools:\n  python:\n    name: x")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:2")]
        assert "work_pools.python.type" in fault.message

    @pytest.mark.parametrize(
        ("written", "line", "message"),
        [
            (
                "work_pools:\n  python:\n    name: a/b\n    type: process",
                3,
                "work_pools.python.name: a name may not hold",
            ),
            ("work_pools:\n  python:\n    name: x\n    type: p\n    queues:\n      a%b: {}", 6, "a name may not hold"),
            ("concurrency_limits:\n  a: 1\n  db/x: 1", 3, "concurrency_limits.db/x: a name may not hold / % & < >."),
            ("global_concurrency_limits:\n  a>b: 1", 2, "a name may not hold"),
            (
                "global_concurrency_limits:\n  'tag:x': 1",
                2,
                "names that start with tag: or deployment: are Prefect's own",
            ),
        ],
    )
    def test_names_that_no_server_takes(self, tmp_path: Path, written: str, line: int, message: str) -> None:
        (fault,) = faults(tmp_path, written)
        assert places((fault,)) == [("CFG003", f"environments/base.yaml:{line}")]
        assert message in fault.message and fault.remediation

    def test_two_queues_of_a_pool_with_one_priority(self, tmp_path: Path) -> None:
        queues = "    queues:\n      a: {priority: 1}\n      b: {priority: 1}\n      c: {priority: 2}\n      d: {}"
        (fault,) = faults(tmp_path, f"work_pools:\n  python:\n    name: x\n    type: process\n{queues}")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:7")]
        assert fault.message == "work_pools.python.queues.b.priority: the queue a has it already."

    def test_one_pool_described_in_two_ways(self, tmp_path: Path) -> None:
        first, second = "  python: {name: x, type: p, concurrency_limit: 1}", "  docker:\n    name: x\n    type: docker"
        text = f"work_pools:\n{first}\n{second}"
        types, limits = faults(tmp_path, text)
        assert places((types, limits)) == [("CFG003", f"environments/base.yaml:{line}") for line in (3, 5)]
        assert {"work_pools.docker.type", "work_pools.docker.concurrency_limit"} == {
            fault.message.partition(":")[0] for fault in (types, limits)
        }
        assert "work_pools.python says otherwise of the same pool" in types.message

    def test_one_pool_for_both_kinds(self, tmp_path: Path) -> None:
        text = "work_pools:\n  python: {name: x, type: k8s, queues: {a: {priority: 1}}}\n  docker: {name: x, type: k8s}"
        assert read(tmp_path, text).work_pools["docker"].name == "x"

    def test_a_local_worker_needs_a_pool_of_this_machine(self, tmp_path: Path) -> None:
        text = "work_pools:\n  docker: {name: x, type: kubernetes, local_worker: true}"
        (fault,) = faults(tmp_path, text)
        assert places((fault,)) == [("CFG003", "environments/base.yaml:2")]
        assert "local_worker needs a pool of type process or docker" in fault.message

    def test_a_file_that_is_no_mapping(self, tmp_path: Path) -> None:
        assert places(faults(tmp_path, "- a\n- b")) == [("CFG003", "environments/base.yaml:1")]

    def test_all_faults_of_all_files_come_together(self, tmp_path: Path) -> None:
        files = {
            "environments/development.yaml": "selct: []\npolicy: {prune: 1}",
            "prefect.yaml": "deployments:\n  - name: a\n    entrypoint: a.py:a\n    shcedules: []",
        }
        with pytest.raises(ConfigurationError) as caught:
            load_settings(write_files(tmp_path, files), "development")
        expected = [("CFG002", "environments/development.yaml:1"), ("CFG003", "environments/development.yaml:2")]
        assert places(caught.value.faults) == [*expected, ("CFG002", "prefect.yaml:4")]


class TestWords:
    """A wrong value is said in words, with what to write instead."""

    @pytest.mark.parametrize(
        ("written", "message", "remedy"),
        [
            ("prefect_api_url: localhost:4200", "prefect_api_url: must be an address.", "http://host:4200/api"),
            ("resource_limits: {memory: lots}", "resource_limits.memory: must be a size.", "512Mi"),
            ("resource_limits: {cpu: many}", "resource_limits.cpu: must be a number of CPUs.", "500m"),
            ("select: all", "select: must be a list, not text.", "[a, b]"),
            ("default_parameters: [a]", "default_parameters: must be a mapping, not a list.", "key: value"),
            ("docker_registry: 5", "docker_registry: must be text, not a whole number.", "in quotes"),
            ("policy: {prune: 'yes'}", "policy.prune: must be true or false, not text.", "without quotes"),
            (
                "policy: {delete_limit: 1.5}",
                "policy.delete_limit: must be a whole number, not a number with a fraction.",
                "digits",
            ),
            ("policy: {delete_share: 3}", "policy.delete_share: must be at most 1.", "at most 1"),
            ("concurrency_limits: {a: 0}", "concurrency_limits.a: must be greater than 0.", "greater than 0"),
            ("image_pull_policy: Alway", "image_pull_policy: must be IfNotPresent, Always or Never.", "'Always'"),
            ("work_pools: {python: {name: x}}", "work_pools.python.type: it is missing.", "Add this key."),
            ("work_pools: {python: {name: '', type: x}}", "work_pools.python.name: must not be empty.", "a text"),
            ("deployer: {schedule: {}}", "deployer.schedule: a schedule has exactly one of", "a schedule for each"),
        ],
    )
    def test_what_it_must_be_and_how_to_write_it(self, tmp_path: Path, written: str, message: str, remedy: str) -> None:
        (fault,) = faults(tmp_path, written)
        assert fault.message.startswith(message)
        assert remedy in fault.remediation

    def test_the_value_itself_is_not_shown(self, tmp_path: Path) -> None:
        found = faults(tmp_path, "prefect_api_url: hunter2\nimage_pull_policy: hunter2\npolicy: {prune: hunter2}")
        assert len(found) == 3
        assert not any("hunter2" in fault.message + fault.remediation for fault in found)

    def test_local_worker_points_to_the_file_that_says_the_type(self, tmp_path: Path) -> None:
        base = "work_pools:\n  python:\n    name: x\n    type: proces"
        found = all_faults(
            tmp_path,
            {
                "environments/base.yaml": base,
                "environments/development.yaml": "work_pools: {python: {local_worker: true}}",
            },
        )
        assert sorted(places(found)) == [("CFG003", "environments/base.yaml:4"), ("CFG009", "environments/base.yaml:4")]

    def test_the_type_of_a_pool_is_looked_at_beside_another_fault(self, tmp_path: Path) -> None:
        text = "work_pools:\n  python:\n    name: x\n    type: proces\n    concurrency_limit: many"
        found = all_faults(tmp_path, {"environments/development.yaml": text})
        assert sorted(code for code, _ in places(found)) == ["CFG003", "CFG009"]


class TestImages:
    def test_by_default(self, tmp_path: Path) -> None:
        found = read(tmp_path)
        assert (found.docker_registry, found.docker_registry_credentials) == (None, None)
        assert found.images == ImagesConfig(parallel=2, timeout_minutes=30, platform=None, builds={})

    def test_all_that_may_be_said(self, tmp_path: Path) -> None:
        text = """
            images:
              parallel: 4
              timeout_minutes: 5
              platform: linux/amd64
              builds:
                docker/flow.Dockerfile:
                  context: .
                  target: run
                  platform: linux/arm64
                  arguments: {A: x, B: 1, C: 1.5, TOKEN: "{{ $TOKEN }}"}
                  whole_context: true
                  repository: etl
        """
        assert read(tmp_path, dedent(text)).images == ImagesConfig(
            parallel=4,
            timeout_minutes=5,
            platform="linux/amd64",
            builds={
                "docker/flow.Dockerfile": ImageBuildConfig(
                    context=".",
                    target="run",
                    platform="linux/arm64",
                    arguments={"A": "x", "B": "1", "C": "1.5", "TOKEN": "{{ $TOKEN }}"},
                    whole_context=True,
                    repository="etl",
                )
            },
        )

    def test_an_environment_says_more_of_a_build(self, tmp_path: Path) -> None:
        base = "images: {parallel: 4, builds: {Dockerfile: {target: run, arguments: {A: '1'}}}}"
        found = read(tmp_path, base, "images: {builds: {Dockerfile: {arguments: {B: '2'}}}}").images
        assert (found.parallel, found.builds["Dockerfile"].target) == (4, "run")
        assert found.builds["Dockerfile"].arguments == {"A": "1", "B": "2"}

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("images: {parallel: 0}", "images.parallel: must be greater than 0."),
            ("images: {timeout_minutes: 0}", "images.timeout_minutes: must be greater than 0."),
            ("images: {timeout_minutes: 1.5}", "images.timeout_minutes: must be a whole number"),
            ("images: {platform: ''}", "images.platform: must not be empty."),
            ("images: {builds: [Dockerfile]}", "images.builds: must be a mapping, not a list."),
            ("images: {builds: {D: {target: ''}}}", "images.builds.D.target: must not be empty."),
            ("images: {builds: {D: {repository: ''}}}", "images.builds.D.repository: must not be empty."),
            ("images: {builds: {D: {whole_context: 1}}}", "images.builds.D.whole_context: must be true or false"),
            ("images: {builds: {D: {arguments: {A: true}}}}", "images.builds.D.arguments.A: must be text"),
            ("images: {builds: {D: {arguments: [A=1]}}}", "images.builds.D.arguments: must be a mapping"),
        ],
    )
    def test_wrong_values(self, tmp_path: Path, written: str, message: str) -> None:
        (fault,) = faults(tmp_path, written)
        assert places((fault,)) == [("CFG003", "environments/base.yaml:1")]
        assert fault.message.startswith(message) and fault.remediation

    @pytest.mark.parametrize(
        ("written", "nearest"),
        [("images: {paralel: 2}", "parallel"), ("images: {builds: {D: {argumnets: {}}}}", "arguments")],
    )
    def test_unknown_keys(self, tmp_path: Path, written: str, nearest: str) -> None:
        (fault,) = faults(tmp_path, written)
        assert fault.code == "CFG002" and fault.remediation.startswith(f"Did you mean {nearest!r}?")

    @pytest.mark.parametrize(
        "registry",
        [
            *("registry.example.com", "registry.example.com/team", "registry.example.com/team/data/", "localhost:5000"),
            *("127.0.0.1:5051/x", "team", "ghcr.io/my-team/my_data", "eu.gcr.io/project-1/x.y", "Registry.example.com"),
        ],
    )
    def test_a_registry_is_a_host_and_perhaps_a_path(self, tmp_path: Path, registry: str) -> None:
        assert read(tmp_path, f"docker_registry: '{registry}'").docker_registry == registry

    @pytest.mark.parametrize(
        "registry",
        [
            *(
                "https://registry.example.com",
                "registry.example.com/Team",
                "user@registry.example.com",
                "a b",
                "",
                "/x",
            ),
            *("registry.example.com:port", "registry.example.com/team:tag", "registry.example.com//x", "a/b@sha256:0"),
            *("{{ $REGISTRY }}", "registry.example.com/-x", "x\n"),
        ],
    )
    def test_and_nothing_else(self, tmp_path: Path, registry: str) -> None:
        (fault,) = faults(tmp_path, f"docker_registry: {json.dumps(registry)}")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:1")]
        assert fault.message == "docker_registry: must be a registry."
        assert "without https://" in fault.remediation

    @pytest.mark.parametrize(
        "block",
        [
            "{{ prefect.blocks.docker-registry-credentials.team }}",
            "{{prefect.blocks.docker-registry-credentials.my-team}}",
        ],
    )
    def test_its_user_is_a_block(self, tmp_path: Path, block: str) -> None:
        assert read(tmp_path, f"docker_registry_credentials: '{block}'").docker_registry_credentials == block

    @pytest.mark.parametrize(
        "written",
        [
            *(
                "user:hunter2",
                "hunter2",
                "{{ $HUNTER2 }}",
                "{{ prefect.variables.hunter2 }}",
                "",
                "{username: hunter2}",
            ),
            *("x {{ prefect.blocks.hunter2.b }}", "prefect.blocks.hunter2.b", "{{ prefect.blocks.hunter2 }}"),
        ],
    )
    def test_and_never_a_value(self, tmp_path: Path, written: str) -> None:
        value = written if written.startswith("{user") else json.dumps(written)
        (fault,) = faults(tmp_path, f"docker_registry_credentials: {value}")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:1")]
        assert "hunter2" not in f"{fault.message}{fault.remediation}".lower()


class TestPlainData:
    """What is read is what JSON has."""

    def test_dates_and_times_are_text_as_prefect_sends_them(self, tmp_path: Path) -> None:
        text = """
            default_parameters:
              day: 2024-02-01
              window: {start: 2024-01-01 05:00:00, ends: [2024-01-02T05:00:00.5+01:00, 2024-01-03T00:00:00Z]}
              2024-01-01: a key
        """
        found = read(tmp_path, text).default_parameters
        assert found == {
            "day": "2024-02-01",
            "window": {
                "start": "2024-01-01T05:00:00",
                "ends": ["2024-01-02T05:00:00.500000+01:00", "2024-01-03T00:00:00Z"],
            },
            "2024-01-01": "a key",
        }
        values = {
            "day": date(2024, 2, 1),
            "start": datetime.fromisoformat("2024-01-01T05:00:00"),
            "end": datetime(2024, 1, 3, tzinfo=UTC),
        }
        assert list(to_jsonable_python(values).values()) == [
            "2024-02-01",
            "2024-01-01T05:00:00",
            "2024-01-03T00:00:00Z",
        ]

    def test_other_things_of_yaml(self, tmp_path: Path) -> None:
        text = "default_parameters: {a: !!binary aGFsbG8=, b: !!set {x, y}, c: {2: one, true: two, null: three, a: b}}"
        found = read(tmp_path, text).default_parameters
        assert found == {"a": "hallo", "b": ["x", "y"], "c": {"2": "one", "true": "two", "null": "three", "a": "b"}}

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        assert places(faults(tmp_path, "default_parameters:\n  a: !!binary 9w==")) == [
            ("CFG001", "environments/base.yaml:2")
        ]

    @pytest.mark.parametrize("written", [".nan", ".inf", "-.inf", '"\\ud800"'])
    def test_what_json_has_not(self, tmp_path: Path, written: str) -> None:
        (fault,) = faults(tmp_path, f"default_parameters:\n  deep:\n    - 1\n    - {{x: {written}}}")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:4")]
        assert fault.message.startswith("default_parameters.deep[2].x: ")


class TestAnchors:
    @pytest.mark.parametrize("key", ["x-pool", ".pool"])
    def test_have_a_place_at_the_top(self, tmp_path: Path, key: str) -> None:
        text = f"{key}: &pool {{name: x, type: process}}\nwork_pools: {{python: *pool}}"
        assert read(tmp_path, text).work_pools["python"].name == "x"

    def test_but_not_further_in(self, tmp_path: Path) -> None:
        assert [fault.code for fault in faults(tmp_path, "policy: {x-a: 1}")] == ["CFG002"]


class TestUnknownKeysKeepNothingBack:
    def test_the_rest_of_an_environment_holds(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"environments/development.yaml": "plicy: {}\ndefault_parameters: {rows: 5}"})
        found, problems = ConfigurationManager(tmp_path).read_environment("development")
        assert found.default_parameters == {"rows": 5}
        assert [each.code for each in problems] == ["CFG002"]

    def test_other_rules_look_at_the_rest_of_a_prefect_yaml(self, tmp_path: Path) -> None:
        files = {
            "flows/etl.py": "from prefect import flow\n@flow\ndef etl(rows: int): ...\n",
            "prefect.yaml": """
                deployments:
                  - name: daily
                    entrypoint: flows/etl.py:etl
                    paramaters: {rows: 5}
                    schedules: [{cron: 61 2 * * *}]
            """,
            "environments/development.yaml": "{}",
        }
        codes = [fault.code for fault in all_faults(tmp_path, files)]
        assert codes == ["CFG002", "DPL007"]  # and no DPL004: the value may be the one under the unknown key

    def test_but_nothing_is_deployed(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"prefect.yaml": "nme: x"})
        with pytest.raises(ConfigurationError):
            load_settings(tmp_path, "development")


class TestOtherExtensions:
    def test_are_told(self, tmp_path: Path) -> None:
        files = {
            "environments/development.yaml": "{}",
            "environments/staging.yml": "",
            "prefect.yml": "",
            "jobs/prefect.yml": "",
            "jobs/my-prefect.yml": "",
        }
        found = faults_of(tmp_path, files, "CFG010")
        assert [fault.file_path for fault in found] == ["environments/staging.yml", "jobs/prefect.yml", "prefect.yml"]
        assert found[0].remediation == "Rename it to staging.yaml."
        assert {fault.severity for fault in found} == {"warning"}

    def test_unless_the_project_reads_them(self, tmp_path: Path) -> None:
        files = {
            "pyproject.toml": '[tool.orchestrator]\nprefect_files = ["prefect.yml"]',
            "environments/development.yaml": "{}",
            "prefect.yml": "",
        }
        assert faults_of(tmp_path, files, "CFG010") == ()


class TestUnreadableFiles:
    def test_broken_yaml(self, tmp_path: Path) -> None:
        assert places(faults(tmp_path, "select: [a\npolicy: {}")) == [("CFG001", "environments/base.yaml:2")]

    def test_a_key_written_twice(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "policy:\n  prune: true\n  prune: false")
        assert places((fault,)) == [("CFG001", "environments/base.yaml:3")]
        assert "'prune' stands here twice" in fault.message

    def test_a_list_as_a_key(self, tmp_path: Path) -> None:
        assert places(faults(tmp_path, "? [a, b]\n: 1")) == [("CFG001", "environments/base.yaml:1")]

    def test_an_anchor_inside_itself(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "select: &a [*a]")
        assert (fault.code, fault.file_path) == ("CFG001", "environments/base.yaml")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("2024-13-45", "this is no timestamp: month must be in 1..12"),
            ("2024-01-01T25:00:00", "this is no timestamp: hour must be in 0..23"),
            ("!!int abc", "this is no int"),
            ("!!bool perhaps", "this is no bool"),
            ("!!timestamp today", "this is no timestamp"),
            ("9" * 5000, "this is no int"),
        ],
    )
    def test_a_value_that_is_none_of_its_form(self, tmp_path: Path, value: str, reason: str) -> None:
        (fault,) = faults(tmp_path, f"default_parameters:\n  day: 1\n  since: {value}\n")
        assert places((fault,)) == [("CFG001", "environments/base.yaml:3")]
        assert reason in fault.message

    def test_text_that_is_no_utf8(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"environments/development.yaml": ""}).joinpath("environments/base.yaml").write_bytes(
            b"# one\n# two\n# sch\xf6n"
        )
        with pytest.raises(ConfigurationError) as caught:
            ConfigurationManager(tmp_path).load_environment_config("development")
        (fault,) = caught.value.faults
        assert places((fault,)) == [("CFG001", "environments/base.yaml:3")]
        assert "not UTF-8 (byte 0xf6)" in fault.message
        assert fault.remediation == "Save the file as UTF-8."

    def test_reading_runs_no_code(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "select: !!python/object/apply:os.getcwd []")
        assert places((fault,)) == [("CFG001", "environments/base.yaml:1")]


class TestEnvironmentThatDoesNotExist:
    def load(self, root: Path, env: str) -> Fault:
        write_files(root, {f"environments/{name}.yaml": "{}" for name in ("base", "staging", "production")})
        with pytest.raises(ConfigurationError) as caught:
            ConfigurationManager(root).load_environment_config(env)
        return caught.value.faults[0]

    def test_the_ones_that_do_are_named(self, tmp_path: Path) -> None:
        fault = self.load(tmp_path, "nowhere")
        assert fault.code == "CFG004"
        assert "Environments here: production, staging." in fault.remediation

    def test_the_nearest_is_suggested(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, "stagign").remediation.startswith("Did you mean 'staging'?")

    def test_base_is_no_environment(self, tmp_path: Path) -> None:
        assert self.load(tmp_path, "base").code == "CFG004"


SHOP = {"shop/pyproject.toml": "[tool.orchestrator]\nproject = 'shop'\n", "shop/flows/etl.py": ""}


class TestFolderInsideOfAProject:
    def test_is_not_taken_for_a_project_of_its_own(self, tmp_path: Path) -> None:
        write_files(tmp_path, SHOP)
        with pytest.raises(ConfigurationError, match="a folder inside of one") as caught:
            load_settings(tmp_path / "shop" / "flows", "development")
        assert caught.value.remedy == f"Call it in {tmp_path}/shop, or with --root {tmp_path}/shop."

    def test_nor_is_one_with_a_prefect_yaml_of_its_own(self, tmp_path: Path) -> None:
        write_files(tmp_path, {**SHOP, "shop/flows/prefect.yaml": "{}"})
        with pytest.raises(ConfigurationError, match="a folder inside of one"):
            load_settings(tmp_path / "shop" / "flows", "development")

    @pytest.mark.parametrize("own", ["pyproject.toml", "environments/development.yaml"])
    def test_may_be_one_where_it_says_so(self, tmp_path: Path, own: str) -> None:
        text = "[tool.orchestrator]\n" if own.endswith(".toml") else "{}"
        write_files(tmp_path, {**SHOP, f"shop/inner/{own}": text, "shop/inner/flows/etl.py": ""})
        assert load_settings(tmp_path / "shop" / "inner", "development").project.project == "inner"

    def test_a_pyproject_without_us_makes_none(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"shop/pyproject.toml": "[project]\nname = 'x'\n", "shop/inner/flows/etl.py": ""})
        assert load_settings(tmp_path / "shop" / "inner", "development").project.project == "inner"


class TestPlaceholders:
    def test_an_unknown_one_has_file_and_line(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "templates:\n  python:\n    name: x\n    tags:\n      - '{flow.nme}'")
        assert places((fault,)) == [("CFG005", "environments/base.yaml:5")]
        assert fault.remediation.startswith("Did you mean 'flow.name'?")

    def test_a_pool_that_the_environment_does_not_have(self, tmp_path: Path) -> None:
        text = POOLS + "    templates: {python: {work_pool: '{environment.work_pools.docker}'}}"
        assert [fault.code for fault in faults(tmp_path, dedent(text))] == ["CFG005"]

    def test_inside_job_variables(self, tmp_path: Path) -> None:
        (fault,) = faults(
            tmp_path, overlay="templates:\n  docker:\n    job_variables:\n      env:\n        X: '{nope}'"
        )
        assert places((fault,)) == [("CFG005", "environments/development.yaml:5")]

    def test_those_of_prefect_are_left_alone(self, tmp_path: Path) -> None:
        text = "templates: {python: {job_variables: {env: {X: '{{ prefect.blocks.secret.x }}'}}}}"
        template = read(tmp_path, text).templates["python"]
        assert fill(template.job_variables, {}) == {"env": {"X": "{{ prefect.blocks.secret.x }}"}}

    def test_a_placeholder_alone_keeps_the_type_of_its_value(self) -> None:
        assert fill({"a": "{x}", "b": ["is {x}"]}, {"x": {"k": 1}}) == {"a": {"k": 1}, "b": ["is {'k': 1}"]}


class TestSchedules:
    def test_exactly_one_rule(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "deployer:\n  schedule:\n    cron: '0 4 * * *'\n    interval: 5")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:2")]

    @pytest.mark.parametrize("written", ["5400", "'01:30:00'", "PT1H30M"])
    def test_forms_of_an_interval(self, tmp_path: Path, written: str) -> None:
        schedule = read(tmp_path, f"deployer: {{schedule: {{interval: {written}}}}}").deployer.schedule
        assert schedule is not None and schedule.to_schedule().interval == 5400

    @pytest.mark.parametrize("rule", ["interval: 60", "rrule: FREQ=DAILY"])
    def test_without_a_time_zone_the_server_takes_utc(self, tmp_path: Path, rule: str) -> None:
        schedule = read(tmp_path, f"deployer: {{schedule: {{{rule}}}}}").deployer.schedule
        assert schedule is not None and schedule.to_schedule().timezone == "UTC"

    @pytest.mark.parametrize(
        ("written", "echoed"),
        [
            ("2024-01-01", "2024-01-01T00:00:00Z"),
            ("2024-01-01 05:00:00", "2024-01-01T05:00:00Z"),
            ("'2024-01-01T05:00:00+00:00'", "2024-01-01T05:00:00Z"),
            ("'2024-01-01T05:00:00+02:00'", "2024-01-01T05:00:00+02:00"),
        ],
    )
    def test_an_anchor_has_the_form_that_the_server_echoes(self, tmp_path: Path, written: str, echoed: str) -> None:
        schedule = read(tmp_path, f"deployer: {{schedule: {{interval: 60, anchor_date: {written}}}}}").deployer.schedule
        assert schedule is not None and schedule.anchor_date == echoed

    def test_an_anchor_that_is_no_date(self, tmp_path: Path) -> None:
        found = faults(tmp_path, "deployer:\n  schedule:\n    interval: 60\n    anchor_date: soon")
        assert places(found) == [("CFG003", "environments/base.yaml:4")]

    @pytest.mark.parametrize("written", ["often", "-5", "0", "[1]", ".inf", "'25:00:00:00'", "1e30", "{a: 1}"])
    def test_what_is_no_interval_is_said_in_plain_words(self, tmp_path: Path, written: str) -> None:
        (fault,) = faults(tmp_path, f"deployer:\n  schedule:\n    interval: {written}")
        assert places((fault,)) == [("CFG003", "environments/base.yaml:3")]
        assert "no interval; write seconds" in fault.message or "longer than nothing" in fault.message

    def test_what_is_no_anchor_is_said_in_plain_words(self, tmp_path: Path) -> None:
        (fault,) = faults(tmp_path, "deployer:\n  schedule: {interval: 60, anchor_date: soon}")
        assert "no date or time; write it as 2024-01-31" in fault.message


class TestPlaces:
    """An environment knows where each of its values is written."""

    def test_the_overlay_wins(self, tmp_path: Path) -> None:
        found = read(tmp_path, "policy:\n  prune: true\n  delete_limit: 5", "policy:\n\n  prune: false")
        assert found.place("policy", "prune") == ("environments/development.yaml", 3)
        assert found.place("policy", "delete_limit") == ("environments/base.yaml", 3)

    def test_what_is_not_written_is_where_it_would_be(self, tmp_path: Path) -> None:
        found = read(tmp_path, "policy:\n  prune: true", "select: ['*']")
        assert found.place("policy", "delete_share") == ("environments/base.yaml", 1)
        assert found.place("deployer", "name") == ("environments/development.yaml", 1)

    def test_without_files_there_is_none(self) -> None:
        assert EnvironmentConfig(name="a").place("policy") == (None, None)

    def test_where_it_is_written_is_no_part_of_what_it_says(self, tmp_path: Path) -> None:
        found = read(tmp_path, "select: ['a/*']")
        assert found == EnvironmentConfig(name="development", select=("a/*",))
        assert "_written" not in found.model_dump()


class TestPoolTypes:
    def check(self, root: Path, kind: str) -> list[ValidationError]:
        text = f"work_pools:\n  python:\n    name: x\n    type: {kind}"
        return list(faults_of(root, {"environments/development.yaml": text}, "CFG009"))

    @pytest.mark.parametrize(("written", "meant"), [("proces", "process"), ("kubernets", "kubernetes")])
    def test_an_unknown_one_is_a_warning(self, tmp_path: Path, written: str, meant: str) -> None:
        (fault,) = self.check(tmp_path, written)
        assert (fault.location, fault.severity) == ("environments/development.yaml:4", "warning")
        assert fault.remediation.startswith(f"Did you mean {meant}")
        assert marked(tmp_path, fault) == written

    def test_those_of_prefect_and_its_collections_are_known(self, tmp_path: Path) -> None:
        data = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
        types = [name for collection in json.loads(data.read_text()).values() for name in collection]
        assert "kubernetes" in types
        assert [kind for kind in types if self.check(tmp_path, kind)] == []


class TestSelect:
    DECLARED = "deployments:\n  - {name: staging-daily, entrypoint: 'flows/etl.py:etl'}\n"
    FLOW = "from prefect import flow\n@flow(name='shop')\ndef etl(): ...\n"

    def check(self, root: Path, select: str, declared: str = DECLARED) -> list[ValidationError]:
        environment = f"select:\n  - 'shop/*'\n  - '{select}'\n"
        files = {"prefect.yaml": declared, "flows/etl.py": self.FLOW, "environments/development.yaml": environment}
        return list(faults_of(root, files, "CFG012"))

    def test_a_pattern_that_matches_nothing_is_a_warning(self, tmp_path: Path) -> None:
        (fault,) = self.check(tmp_path, "shop/stagin-daily")
        assert (fault.location, fault.severity) == ("environments/development.yaml:3", "warning")
        assert "'shop/stagin-daily' matches no declared deployment" in fault.message
        assert "shop/staging-daily" in fault.remediation
        assert marked(tmp_path, fault) == "shop/stagin-daily"

    @pytest.mark.parametrize("select", ["*", "shop/staging-*", "*/staging-daily"])
    def test_one_that_matches_is_fine(self, tmp_path: Path, select: str) -> None:
        assert self.check(tmp_path, select) == []

    @pytest.mark.parametrize(
        "declared",
        [
            "deployments: []\n",
            DECLARED + "  - {name: other, entrypoint: 'flows/gone.py:gone'}\n",
            DECLARED + "  - {name: '{{ $NAME }}', entrypoint: 'flows/etl.py:etl'}\n",
        ],
    )
    def test_what_is_not_wholly_known_is_left_alone(self, tmp_path: Path, declared: str) -> None:
        assert self.check(tmp_path, "shop/other", declared) == []


class TestMarks:
    """The rules put a caret under the key that a fault names."""

    @pytest.mark.parametrize(
        ("written", "code", "text"),
        [
            ("policy: {prunne: true}", "CFG002", "prunne"),
            ("policy: {prune: sometimes}", "CFG003", "prune"),
            ("templates: {python: {name: 'x-{flow.nme}'}}", "CFG005", "{flow.nme}"),
            ("work_pools: {pyton: {}}", "CFG008", "pyton"),
        ],
    )
    def test_the_key(self, tmp_path: Path, written: str, code: str, text: str) -> None:
        (fault,) = faults_of(tmp_path, {"environments/development.yaml": written}, code)
        assert marked(tmp_path, fault) == text


class TestExamples:
    @pytest.mark.parametrize("code", ["CFG001", "CFG002", "CFG003", "CFG005", "CFG006", "CFG008", "CFG009"])
    def test_the_example_has_its_fault_and_the_better_one_has_not(self, tmp_path: Path, code: str) -> None:
        rule = next(rule for rule in RULES if rule.code == code)
        for text, count in ((rule.example, 1), (rule.better, 0)):
            name = text.partition("\n")[0].removeprefix("# ").partition(",")[0]
            files = {"environments/development.yaml": "{}", name: text}
            assert len(faults_of(tmp_path, files, code)) == count


class TestProject:
    def test_without_pyproject_the_defaults_hold(self, tmp_path: Path) -> None:
        found = ConfigurationManager(tmp_path).load_project()
        assert (found.project, found.flows, found.environments) == (tmp_path.name, (".",), "environments")

    def test_a_folder_called_flows_is_the_default_where_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "flows").mkdir()
        assert ConfigurationManager(tmp_path).load_project().flows == ("flows",)

    def test_what_is_written_holds(self, tmp_path: Path) -> None:
        found = project(tmp_path, '[tool.orchestrator]\nproject = "shop"\nflows = ["jobs"]\nenvironments = "env"')
        assert (found.project, found.flows, found.environments) == ("shop", ("jobs",), "env")

    def test_an_unknown_key_has_its_line(self, tmp_path: Path) -> None:
        (fault,) = project_faults(tmp_path, '[project]\nflow = 1\n\n[tool.orchestrator]\nflow = ["jobs"]')
        assert places((fault,)) == [("CFG002", "pyproject.toml:5")]
        assert fault.remediation.startswith("Did you mean 'flows'?")

    def test_a_wrong_type_has_its_line(self, tmp_path: Path) -> None:
        found = project_faults(tmp_path, '[tool.orchestrator]\nproject = "a b"\nexclude = "x"')
        assert places(found) == [("CFG003", "pyproject.toml:2"), ("CFG003", "pyproject.toml:3")]

    def test_broken_toml_has_its_line(self, tmp_path: Path) -> None:
        found = project_faults(tmp_path, "[tool.orchestrator]\nflows = nope\n")
        assert places(found) == [("CFG001", "pyproject.toml:2")]

    def test_text_that_is_no_utf8_has_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_bytes(b"[project]\n# sch\xf6n\n")
        with pytest.raises(ConfigurationError) as caught:
            ConfigurationManager(tmp_path).load_project()
        assert places(caught.value.faults) == [("CFG001", "pyproject.toml:2")]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"pyproject.toml": '[tool.orchestrator]\nflows = ["flow"]', "flows/a.py": ""})
        settings = read_settings(tmp_path, "development")
        with pytest.raises(ConfigurationError) as caught:
            discover_flows(settings.root, settings.project)
        (fault,) = caught.value.faults
        assert places((fault,)) == [("CFG003", "pyproject.toml:2")]
        assert fault.message == "flows: there is no folder 'flow'."
        assert fault.remediation.startswith("Did you mean 'flows'?")

    def test_the_environments_of_the_project_are_listed(self, tmp_path: Path) -> None:
        write_files(tmp_path, {f"environments/{name}.yaml": "" for name in ("base", "b", "a")})
        assert ConfigurationManager(tmp_path).environments() == ("a", "b")


def test_how_many_applies_are_kept_to_go_back_to(tmp_path: Path) -> None:
    assert EnvironmentConfig(name="x").policy.keep_revisions == 20
    assert read(tmp_path, "policy: {keep_revisions: 100}").policy.keep_revisions == 100
    (fault,) = faults(tmp_path, "policy:\n  keep_revisions: 1\n")
    assert places((fault,)) == [("CFG003", "environments/base.yaml:2")]
