"""What the server or a run would say against a change, before it is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.facts import misfits
from orchestrator.model import Change, Finding, LivePool, PoolSpec
from orchestrator.preflight import References, ServerFacts, findings, references

from .builders import cron, deployment, live

VARIABLES = {
    "type": "object",
    "properties": {
        "image": {"type": "string"},
        "env": {"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "mem_limit": {"type": "string", "default": "1g"},
        "cpu": {"type": "integer", "minimum": 1, "maximum": 8},
        "policy": {"enum": ["Always", "Never"]},
        "volumes": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "labels": {"type": "object", "properties": {"team": {"type": "string"}}, "additionalProperties": False},
        "region": {"type": "string", "pattern": "^eu-"},
    },
}
SIGNATURE = {
    "type": "object",
    "properties": {
        "day": {"type": "string"},
        "rows": {"type": "integer", "default": 5},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    },
    "required": ["day"],
}


def pool(name: str = "processes", type_: str = "process", **fields: Any) -> LivePool:
    return LivePool(spec=PoolSpec(name=name, type=type_), **{"job_template": {"variables": VARIABLES}, **fields})


FACTS = ServerFacts(
    pools=(pool(), pool("elsewhere")),
    wanted_types={"processes": "process"},
    queues=frozenset([("processes", "default"), ("processes", "tables"), ("elsewhere", "far")]),
    served_pools=frozenset(["processes", "elsewhere"]),
    references=References(
        variables=frozenset(["region"]), blocks=frozenset(["secret/db-password"]), block_ids=frozenset(["an-id"])
    ),
    server_version="3.8.8",
    client_version="3.8.8",
)


def found(facts: ServerFacts = FACTS, action: Any = "create", **fields: Any) -> tuple[Finding, ...]:
    """What is said against creating a deployment in the pool `processes`."""
    desired = deployment(**{"work_pool": "processes", "work_queue": "default", **fields})
    change = Change(action=action, deployment=desired.deployment_path, desired=desired, live=live(desired))
    return findings(change, facts, misfits)


def only(items: tuple[Finding, ...]) -> Finding:
    assert len(items) == 1, items
    assert items[0].remedy
    return items[0]


def test_nothing_is_said_against_what_fits() -> None:
    assert (
        found(
            job_variables={"image": "a:1", "env": {"A": "1", "B": None}, "cpu": 8, "volumes": ["a", "b"]},
            parameters={"day": "today", "limit": None},
            schedules=(cron(parameters={"rows": 7}),),
            parameter_schema=SIGNATURE,
            work_queue="tables",
            pull_steps=({"a": {"token": "{{ prefect.blocks.secret.db-password }}", "x": "{{ $HOME }}"}},),
        )
        == ()
    )


@pytest.mark.parametrize("action", ["unchanged", "delete", "conflict"])
def test_what_is_not_written_is_not_checked(action: Any) -> None:
    assert found(action=action, work_pool="nowhere") == ()


@pytest.mark.parametrize("action", ["create", "update", "adopt"])
def test_what_is_written_is_checked(action: Any) -> None:
    assert only(found(action=action, work_pool="nowhere")).severity == "error"


class TestPool:
    def test_one_that_there_is_not(self) -> None:
        finding = only(found(work_pool="proceses"))
        assert (finding.message, finding.severity) == ("There is no work pool 'proceses'.", "error")
        assert finding.remedy.startswith("Did you mean 'processes'? The environment's pools are processes.")

    def test_a_pool_of_the_server_alone_is_near_too(self) -> None:
        assert "Did you mean 'elsewhere'?" in only(found(work_pool="elswhere")).remedy

    def test_without_pools_in_the_environment(self) -> None:
        facts = replace(FACTS, wanted_types={})
        assert "Declare it in the environment's file." in only(found(facts, work_pool="nowhere")).remedy

    def test_of_another_type_than_the_environment_says(self) -> None:
        facts = replace(FACTS, wanted_types={"processes": "docker"})
        finding = only(found(facts))
        assert "has the type 'process', and the environment says 'docker'" in finding.message
        assert finding.severity == "error"

    def test_one_of_which_the_environment_says_nothing_may_have_any_type(self) -> None:
        facts = replace(FACTS, pools=(pool("elsewhere", "kubernetes"),))
        assert found(facts, work_pool="elsewhere", work_queue="far") == ()

    def test_none_is_asked_for(self) -> None:
        assert found(work_pool=None, work_queue=None, job_variables={"anything": 1}) == ()


class TestQueue:
    def test_one_that_there_is_not(self) -> None:
        finding = only(found(work_queue="table"))
        assert finding.severity == "warning"
        assert "has no queue 'table'; the server will create it" in finding.message
        assert finding.remedy.startswith("Did you mean 'tables'?")

    def test_a_queue_of_another_pool_is_none_of_this_one(self) -> None:
        finding = only(found(work_queue="far"))
        assert "'processes' has no queue 'far'" in finding.message
        assert "Did you mean" not in finding.remedy

    def test_of_a_missing_pool_nothing_is_said_about_its_queue(self) -> None:
        assert only(found(work_pool="nowhere", work_queue="nowhere")).message == "There is no work pool 'nowhere'."


class TestWorker:
    def test_none_is_online(self) -> None:
        finding = only(found(replace(FACTS, served_pools=frozenset())))
        assert (finding.severity, finding.remedy) == (
            "warning",
            "Start one with `prefect worker start --pool processes`.",
        )

    @pytest.mark.parametrize("type_", ["ecs:push", "prefect:managed"])
    def test_a_pool_that_starts_runs_itself_needs_none(self, type_: str) -> None:
        assert found(replace(FACTS, pools=(pool(type_=type_),), wanted_types={}, served_pools=frozenset())) == ()

    def test_a_paused_pool(self) -> None:
        finding = only(found(replace(FACTS, pools=(pool(is_paused=True),))))
        assert finding.severity == "warning"
        assert "paused" in finding.message and "prefect work-pool resume processes" in finding.remedy


class TestVersions:
    @pytest.mark.parametrize(
        ("server", "client", "severity"),
        [
            ("3.8.8", "3.8.8", None),
            ("3.8.1", "3.8.8", None),
            ("3.9.0", "3.8.8", None),
            ("3.10.0", "3.9.0", None),
            ("3.8.8+12.gabc", "3.8.9.dev1", None),
            ("3.7.9", "3.8.0", "warning"),
            ("3.9.0", "3.10.0", "warning"),
            ("2.20.1", "3.8.8", "error"),
            ("4.0.0", "3.8.8", "error"),
            ("unknown", "3.8.8", None),
        ],
    )
    def test_how_they_fit(self, server: str, client: str, severity: str | None) -> None:
        items = found(replace(FACTS, server_version=server, client_version=client))
        assert [finding.severity for finding in items] == ([severity] if severity else [])
        assert all(server in finding.message and client in finding.message for finding in items)


class TestJobVariables:
    def test_an_unknown_one(self) -> None:
        finding = only(found(job_variables={"imgae": "a:1"}))
        assert finding.message == "The work pool 'processes' knows no job variable 'imgae'; it would have no effect."
        assert finding.severity == "warning"
        assert finding.remedy.startswith("Did you mean 'image'? Known: cpu, env, image,")

    def test_a_template_that_allows_any(self) -> None:
        facts = replace(FACTS, pools=(pool(job_template={"variables": {**VARIABLES, "additionalProperties": True}}),))
        assert found(facts, job_variables={"imgae": "a:1"}) == ()

    @pytest.mark.parametrize("template", [{}, {"variables": {}}])
    def test_a_pool_without_a_template_takes_anything(self, template: dict[str, Any]) -> None:
        assert found(replace(FACTS, pools=(pool(job_template=template),)), job_variables={"imgae": 1}) == ()

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"image": 5}, "job_variables.image does not fit the work pool 'processes': it must be of type string"),
            (
                {"env": {"A": 1}},
                "job_variables.env.A does not fit the work pool 'processes': it must be of type string",
            ),
            ({"env": {"A": 1}}, "or null, not integer."),
            ({"volumes": ["a", 1]}, "job_variables.volumes[1] does not fit"),
            ({"volumes": ["a", "b", "c"]}, "it must be a list of at most 2."),
            ({"cpu": 9}, "it must be at most 8."),
            ({"cpu": 0}, "it must be at least 1."),
            ({"policy": "Somtimes"}, "it must be one of Always, Never."),
            ({"region": "us-1"}, "it must match the pattern ^eu-."),
            ({"labels": {"taem": "x"}}, "job_variables.labels does not fit the work pool 'processes': it has a key"),
        ],
    )
    def test_one_that_does_not_fit(self, variables: dict[str, Any], message: str) -> None:
        finding = only(found(job_variables=variables))
        assert message in finding.message
        assert finding.severity == "error"

    def test_null_fits_what_has_a_default(self) -> None:
        assert found(job_variables={"mem_limit": None}) == ()

    def test_all_of_them_are_told(self) -> None:
        assert len(found(job_variables={"imgae": "a", "image": 5, "cpu": 0})) == 3

    def test_no_value_is_shown(self) -> None:
        values = {"env": {"TOKEN": {"hunter2": 1}}, "image": 7777777, "policy": "hunter2", "region": "hunter2"}
        text = str(found(job_variables=values, parameters={"rows": "hunter2"}, parameter_schema=SIGNATURE))
        assert len(found(job_variables=values)) == 4
        assert "hunter2" not in text and "7777777" not in text


class TestParameters:
    def test_an_unknown_one(self) -> None:
        finding = only(found(parameters={"rwos": 1}, parameter_schema=SIGNATURE))
        assert finding.message == "parameters: the flow has no parameter 'rwos'; Prefect would refuse every run."
        assert finding.remedy == "Did you mean 'rows'? Known: day, limit, rows."

    def test_an_unknown_one_of_a_flow_without_parameters(self) -> None:
        schema = {"type": "object", "properties": {}}
        assert only(found(parameters={"rows": 1}, parameter_schema=schema)).remedy == "Known: none."

    def test_one_that_does_not_fit(self) -> None:
        finding = only(found(parameters={"rows": "many"}, parameter_schema=SIGNATURE))
        assert finding.message == (
            "parameters.rows does not fit the flow's signature: it must be of type integer, not string."
        )

    def test_one_of_a_schedule(self) -> None:
        schedule = cron(slug="nightly", parameters={"rows": "many", "dya": "x"})
        unknown, unfit = found(schedules=(schedule,), parameter_schema=SIGNATURE)
        assert unknown.message.startswith("schedules[nightly].parameters: the flow has no parameter 'dya'")
        assert unfit.message.startswith("schedules[nightly].parameters.rows does not fit")

    def test_a_required_one_may_come_with_the_run(self) -> None:
        assert found(parameter_schema=SIGNATURE) == ()

    def test_a_schema_that_is_not_enforced(self) -> None:
        fields = {"parameter_schema": SIGNATURE, "enforce_parameter_schema": False}
        assert found(parameters={"rows": "many"}, **fields) == ()
        assert len(found(parameters={"rwos": 1}, **fields)) == 1

    def test_without_a_schema_nothing_is_known(self) -> None:
        assert found(parameters={"anything": 1}, parameter_schema={}) == ()

    def test_a_schema_that_refers_to_itself_is_no_reason_to_fail(self) -> None:
        schema = {"properties": {"x": {"$ref": "#/nowhere"}}}
        assert found(parameters={"x": 1}, parameter_schema=schema) == ()


class TestReferences:
    def test_a_variable_that_there_is_not(self) -> None:
        finding = only(found(job_variables={"image": "a:{{ prefect.variables.image_tag }}"}))
        assert "no variable 'image_tag'" in finding.message and finding.severity == "error"
        assert "prefect variable set image_tag" in finding.remedy

    def test_a_block_that_there_is_not(self) -> None:
        finding = only(found(pull_steps=({"s": {"token": "{{prefect.blocks.secret.db-pasword.value}}"}},)))
        assert finding.message.startswith("There is no block 'db-pasword' of type 'secret'")
        assert finding.remedy.startswith("Did you mean 'secret/db-password'?")

    def test_a_block_by_its_id(self) -> None:
        config = {"env": {"$ref": {"block_document_id": "an-id"}}}
        assert all("no block" not in finding.message for finding in found(job_variables=config))
        config = {"env": {"$ref": {"block_document_id": "gone"}}}
        assert any("no block with the id gone" in finding.message for finding in found(job_variables=config))

    def test_what_is_named(self) -> None:
        config = deployment(
            job_variables={"env": {"A": "{{ prefect.variables.a }}/{{ prefect.variables.b }}", "B": ["{{ $HOME }}"]}},
            pull_steps=(
                {"prefect.deployments.steps.git_clone": {"credentials": "{{ prefect.blocks.github.me }}"}},
                {"prefect.deployments.steps.git_clone": {"token": "{{ prefect.blocks.json.all.keys[0] }}"}},
                {"prefect.deployments.steps.pull_with_block": {"block_type_slug": "s3", "block_document_name": "code"}},
                {"prefect.deployments.steps.run_shell_script": {"script": "echo prefect.variables.no"}},
            ),
        )
        assert references(config) == References(
            variables=frozenset(["a", "b"]), blocks=frozenset(["github/me", "json/all", "s3/code"])
        )

    def test_parameters_are_not_looked_up(self) -> None:
        assert references(deployment(parameters={"x": "{{ prefect.variables.a }}"})) == References()


def test_errors_come_first() -> None:
    items = found(replace(FACTS, served_pools=frozenset()), work_queue="new", job_variables={"image": 1})
    assert [finding.severity for finding in items] == ["error", "warning", "warning"]


class TestPullSteps:
    CLONE = "prefect.deployments.steps.git_clone"

    def lost(self, there: str, wanted: str) -> list[str]:
        steps = ({self.CLONE: {"repository": there}},)
        config = deployment(work_pool="processes", pull_steps=({self.CLONE: {"repository": wanted}},))
        change = Change(action="update", deployment="etl/daily", desired=config, live=live(config, pull_steps=steps))
        return [item.message for item in findings(change, FACTS, misfits) if "pull steps" in item.message]

    def test_a_value_that_is_lost_because_a_variable_is_not_set_here(self) -> None:
        (message,) = self.lost("https://git/shop", "{{ $REPOSITORY }}")
        assert message.startswith("The environment variable REPOSITORY is not set here")

    @pytest.mark.parametrize("there", ["{{ $REPOSITORY }}", "{{ $BASE }}/shop"])
    def test_what_was_left_to_the_worker_before(self, there: str) -> None:
        assert self.lost(there, "{{ $REPOSITORY }}") == []

    def test_what_is_set_here_after_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REPOSITORY", "https://git/shop")
        assert self.lost("https://git/shop", "{{ $REPOSITORY }}") == []

    def test_a_place_that_had_nothing(self) -> None:
        clone = {"repository": "https://git/shop"}
        config = deployment(work_pool="processes", pull_steps=({self.CLONE: {**clone, "access_token": "{{ $T }}"}},))
        there = live(config, pull_steps=({self.CLONE: clone},))
        change = Change(action="update", deployment="etl/daily", desired=config, live=there)
        assert [item for item in findings(change, FACTS, misfits) if "pull steps" in item.message] == []

    def test_what_is_written_out(self) -> None:
        assert self.lost("https://git/shop", "https://git/bank") == []
