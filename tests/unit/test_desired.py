"""What an environment should have: declarations, templates, overrides, and the deployer itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import EnvironmentConfig
from orchestrator.deploy_steps import BUILD_STEPS, PUSH_STEPS, implied_step
from orchestrator.desired import (
    DEPLOYER_ENTRYPOINT,
    SET_DIRECTORY,
    Selection,
    deployer_version,
    desired_state,
    from_template,
    select,
)
from orchestrator.dockerfile import read_dockerfile
from orchestrator.images.specs import FlowImage
from orchestrator.model import (
    Declaration,
    DeploymentConfig,
    Desired,
    Discovery,
    FlowMetadata,
    ImageSpec,
    ScheduleConfig,
)
from orchestrator.step_outputs import images_of
from tests.unit.builders import OWNER, cron, declaration, environment, flow, image_spec, problem

ROOT = Path("/repo")
TEMPLATE = {"python": {"name": "{environment.name}-{kind}"}}
DOCKER_POOL = {"docker": {"name": "containers", "type": "docker"}}


def work_out(
    flows: Sequence[FlowMetadata] = (),
    declarations: Sequence[Declaration] = (),
    where: EnvironmentConfig | None = None,
    **more: Any,
) -> Desired:
    return desired_state(
        root=ROOT,
        project="shop",
        environment=where or environment(),
        discovery=Discovery(flows=tuple(flows)),
        declarations=declarations,
        **{"schemas": {}, **more},
    )


def one(
    found: FlowMetadata | None = None, asked: Declaration | None = None, where: EnvironmentConfig | None = None
) -> DeploymentConfig:
    """The deployment that one declared flow gets."""
    (config,) = but_the_deployer(work_out([found or flow()], [asked or declaration()], where))
    return config


def but_the_deployer(desired: Desired) -> list[DeploymentConfig]:
    return [config for config in desired.deployments if config.origin != "deployer"]


def paths(desired: Desired) -> list[str]:
    return [config.deployment_path for config in but_the_deployer(desired)]


def by_template(found: FlowMetadata, **template: Any) -> DeploymentConfig:
    (config,) = but_the_deployer(work_out([found], (), environment(templates={"python": template})))
    return config


class TestDeclared:
    def test_keeps_what_its_file_says(self) -> None:
        said: dict[str, Any] = {
            "description": "Loads the shop.",
            "version": "7",
            "work_pool": "big",
            "work_queue": "fast",
            "parameters": {"rows": 5},
            "job_variables": {"env": {"A": "1"}},
            "pull_steps": ({"step": {}},),
            "schedules": (cron(),),
            "paused": True,
            "concurrency_limit": 2,
            "concurrency_options": {"collision_strategy": "CANCEL_NEW"},
            "enforce_parameter_schema": False,
        }
        found = one(asked=declaration(**said))
        assert {name: getattr(found, name) for name in said} == said

    def test_is_named_after_flow_and_declaration(self) -> None:
        assert one().deployment_path == "etl/daily"

    def test_what_the_file_leaves_open_comes_from_flow_and_environment(self) -> None:
        found = one(flow(description="Loads."))
        assert (found.work_pool, found.description, found.paused) == ("processes", "Loads.", False)
        assert (found.entrypoint, found.source) == ("flows/etl.py:etl", "prefect.yaml:3")

    def test_the_version_is_the_beginning_of_the_closure_digest(self) -> None:
        assert one(flow(closure_digest="abc" * 20)).version == "abcabcabcabc"

    def test_the_queue_is_the_pools_default(self) -> None:
        assert one().work_queue == "default"

    def test_without_a_pool_there_is_no_queue(self) -> None:
        found = one(where=environment(work_pools={}))
        assert (found.work_pool, found.work_queue) == (None, None)

    def test_the_owners_tag_comes_last(self) -> None:
        assert one(asked=declaration(tags=("b", "a", "b"))).tags == ("b", "a", OWNER.tag)

    def test_pull_steps_go_to_the_folder_of_its_file(self) -> None:
        found = one(flow(path="jobs/flows/etl.py"), declaration(folder="jobs", entrypoint="jobs/flows/etl.py:etl"))
        assert found.pull_steps == ({SET_DIRECTORY: {"directory": "/repo/jobs"}},)
        assert found.entrypoint == "flows/etl.py:etl"

    def test_an_entrypoint_above_its_folder(self) -> None:
        found = one(asked=declaration(folder="jobs", entrypoint="jobs/../flows/etl.py:etl"))
        assert found.entrypoint == "../flows/etl.py:etl"

    def test_without_an_entrypoint_the_flows_is_taken(self) -> None:
        assert one(asked=declaration(entrypoint=None, flow_name="etl")).entrypoint == "flows/etl.py:etl"

    def test_an_image_makes_it_a_docker_deployment(self) -> None:
        where = environment(work_pools={"python": {"name": "processes", "type": "process"}, **DOCKER_POOL})
        found = one(asked=declaration(job_variables={"image": "shop:1"}), where=where)
        assert (found.deployment_type, found.work_pool) == ("docker", "containers")

    def test_an_image_that_nobody_builds_has_its_code_where_prefect_expects_it(self) -> None:
        found = one(asked=declaration(job_variables={"image": "shop:1"}))
        assert found.pull_steps == ({SET_DIRECTORY: {"directory": "/opt/prefect"}},)

    def test_no_pull_steps_are_a_choice(self) -> None:
        assert one(asked=declaration(pull_steps=())).pull_steps == ()

    def test_its_entrypoint_stays_as_it_is_written(self) -> None:
        assert one(asked=declaration(written_entrypoint="./flows/etl.py:etl")).entrypoint == "./flows/etl.py:etl"

    def test_its_triggers_come_along(self) -> None:
        assert one(asked=declaration(triggers=({"expect": ["a"]},))).triggers == ({"expect": ["a"]},)

    def test_a_name_of_which_a_placeholder_is_left_keeps_its_file_from_being_pruned(self) -> None:
        asked = declaration("{{ $NOT_SET }}-daily")
        found = work_out([flow()], [asked], problems=(problem(skips=True, declaration=asked.location),))
        assert found.skipped_files == ("flows/etl.py",)

    def test_the_schema_is_its_flows(self) -> None:
        desired = work_out([flow()], [declaration()], schemas={"flows/etl.py:etl": {"title": "Parameters"}})
        assert desired.deployments[0].parameter_schema == {"title": "Parameters"}


class TestDefaultParameters:
    def test_are_given_where_the_flow_has_them(self) -> None:
        where = environment(default_parameters={"rows": 5, "region": "eu"})
        assert one(flow(parameters="rows name"), where=where).parameters == {"rows": 5}

    def test_give_way_to_the_declaration(self) -> None:
        found = one(
            flow(parameters="rows"), declaration(parameters={"rows": 9}), environment(default_parameters={"rows": 5})
        )
        assert found.parameters == {"rows": 9}


class TestSelect:
    def test_chooses_declared_deployments_by_pattern(self) -> None:
        asked = [declaration("daily"), declaration("weekly")]
        assert paths(work_out([flow()], asked, environment(select=["*/weekly"]))) == ["etl/weekly"]

    def test_what_is_not_chosen_gets_no_template_either(self) -> None:
        where = environment(select=["other/*"], templates=TEMPLATE)
        assert paths(work_out([flow()], [declaration()], where)) == []


class TestOverrides:
    def over(self, *, asked: Declaration | None = None, pattern: str = "etl/*", **override: Any) -> DeploymentConfig:
        return one(asked=asked, where=environment(deployments={pattern: override}))

    def test_hold_where_the_pattern_matches(self) -> None:
        assert self.over(description="Here.", paused=True).description == "Here."
        assert self.over(pattern="other/*", description="Here.").description == ""

    def test_mappings_merge(self) -> None:
        asked = declaration(parameters={"a": 1, "b": 1}, job_variables={"env": {"A": "1"}})
        found = self.over(asked=asked, parameters={"b": 2}, job_variables={"env": {"B": "2"}})
        assert found.parameters == {"a": 1, "b": 2}
        assert found.job_variables == {"env": {"A": "1", "B": "2"}}

    def test_schedules_and_tags_are_replaced(self) -> None:
        asked = declaration(schedules=(cron(),), tags=("a",))
        found = self.over(asked=asked, schedules=[{"interval": 60}], tags=["b"])
        assert found.schedules == (ScheduleConfig(interval=60, timezone="UTC"),)
        assert found.tags == ("b", OWNER.tag)

    def test_an_empty_list_removes_the_schedules(self) -> None:
        assert self.over(asked=declaration(schedules=(cron(),)), schedules=[]).schedules == ()

    def test_null_empties(self) -> None:
        asked = declaration(description="x", concurrency_limit=1)
        found = self.over(asked=asked, description=None, concurrency_limit=None)
        assert (found.description, found.concurrency_limit) == ("", None)

    def test_the_later_pattern_wins(self) -> None:
        where = environment(deployments={"etl/*": {"description": "first"}, "*/daily": {"description": "second"}})
        assert one(where=where).description == "second"

    def test_hold_for_deployments_by_template_too(self) -> None:
        where = environment(templates=TEMPLATE, deployments={"etl/*": {"concurrency_limit": 4}})
        assert work_out([flow()], (), where).deployments[0].concurrency_limit == 4


class TestTemplates:
    def test_make_a_deployment_of_a_flow_that_nobody_declares(self) -> None:
        found = by_template(flow(), name="{environment.name}-{kind}")
        assert (found.deployment_path, found.origin) == ("etl/development-python", "template")
        assert (found.work_pool, found.source) == ("processes", "flows/etl.py:4")

    def test_leave_declared_flows_alone(self) -> None:
        desired = work_out([flow("etl"), flow("other")], [declaration()], environment(templates=TEMPLATE))
        assert paths(desired) == ["etl/daily", "other/development-python"]

    def test_without_a_template_an_undeclared_flow_is_not_deployed(self) -> None:
        assert paths(work_out([flow()])) == []

    def test_placeholders_are_filled_in(self) -> None:
        found = by_template(
            flow(),
            name="{flow.name}-{kind}",
            description="{flow.path} of {project}",
            tags=["{flow.module_path}", "{environment.name}"],
            job_variables={"env": {"FUNCTION": "{flow.function_name}"}},
            work_pool="{environment.work_pools.python}",
        )
        assert (found.deployment_name, found.description) == ("etl-python", "flows/etl.py of shop")
        assert found.tags == ("flows.etl", "development", OWNER.tag)
        assert (found.job_variables, found.work_pool) == ({"env": {"FUNCTION": "etl"}}, "processes")

    def test_parameters_are_given_where_the_flow_has_them(self) -> None:
        assert by_template(flow(parameters="a"), parameters={"a": 1, "b": 2}).parameters == {"a": 1}

    def test_the_default_parameters_may_be_named(self) -> None:
        template = {"python": {"parameters": "{environment.default_parameters}"}}
        where = environment(templates=template, default_parameters={"a": 1, "b": 2})
        assert work_out([flow(parameters="b")], (), where).deployments[0].parameters == {"b": 2}

    def test_schedules_of_a_template(self) -> None:
        assert by_template(flow(), schedules=[{"cron": "0 4 * * *"}]).schedules == (cron(),)

    def test_a_docker_template_needs_a_dockerfile(self) -> None:
        where = environment(templates={"docker": {}}, work_pools=DOCKER_POOL)
        flows = [flow("plain"), flow("image", dockerfile_path="docker/Dockerfile")]
        (found,) = work_out(flows, (), where).deployments
        assert (found.deployment_path, found.deployment_type) == ("image/development-docker", "docker")
        assert found.work_pool == "containers"


SHARED = "docker/flow.Dockerfile"
SPEC = image_spec(dockerfile=SHARED)
IMAGES = {SHARED: FlowImage(SPEC, read_dockerfile("FROM python\nWORKDIR /app\nCOPY flows flows"))}
IN_APP = ({SET_DIRECTORY: {"directory": "/app"}},)
IN_CONTAINER = {"image": "{{ image }}", "env": {"PREFECT_HOME": "/tmp/prefect"}}


def with_image(**fields: Any) -> FlowMetadata:
    return flow(**{"dockerfile_path": SHARED, **fields})


def containers(**fields: Any) -> EnvironmentConfig:
    """An environment that runs flows from images."""
    return environment(work_pools=DOCKER_POOL, templates={"docker": fields.pop("template", {})}, **fields)


def image_of(config: DeploymentConfig) -> ImageSpec | None:
    """The image that a deployment needs."""
    needed = images_of(config)
    assert len(needed) <= 1
    return needed[0] if needed else None


class TestImageByTemplate:
    def config(self, where: EnvironmentConfig | None = None, **found: Any) -> DeploymentConfig:
        (config,) = work_out([with_image(**found)], (), where or containers(), images=IMAGES).deployments
        return config

    def test_is_the_one_of_the_flows_dockerfile(self) -> None:
        found = self.config()
        assert (found.deployment_type, found.work_pool, found.steps[0].image) == ("docker", "containers", SPEC)
        assert image_of(found) == SPEC

    def test_says_for_which_code_it_is_built(self) -> None:
        (step,) = self.config(closure_digest="abc" * 20).steps
        assert step.image is not None and step.image.closures == (("etl", "abcabcabcabc"),)

    def test_a_run_starts_where_the_dockerfile_has_put_the_flow(self) -> None:
        found = self.config()
        assert (found.pull_steps, found.entrypoint) == (IN_APP, "flows/etl.py:etl")

    def test_nothing_is_set_where_the_base_image_sets_the_folder(self) -> None:
        images = {SHARED: FlowImage(SPEC, read_dockerfile("FROM python\nCOPY . ."))}
        (found,) = work_out([with_image()], (), containers(), images=images).deployments
        assert (found.pull_steps, found.entrypoint) == ((), "flows/etl.py:etl")

    def test_a_flow_under_another_path(self) -> None:
        images = {SHARED: FlowImage(SPEC, read_dockerfile("FROM python\nWORKDIR /app\nCOPY flows /code"))}
        (found,) = work_out([with_image()], (), containers(), images=images).deployments
        assert (found.pull_steps, found.entrypoint) == (IN_APP, "/code/etl.py:etl")

    @pytest.mark.parametrize("written", [{}, {"image": "{image}"}])
    def test_its_job_variables(self, written: Mapping[str, Any]) -> None:
        assert self.config(containers(template={"job_variables": written})).job_variables == IN_CONTAINER

    def test_those_of_the_template_come_along(self) -> None:
        written = {"networks": ["shop"], "env": {"A": "1", "IMAGE": "{image}"}}
        found = self.config(containers(template={"job_variables": written})).job_variables
        assert found == {
            **IN_CONTAINER,
            "networks": ["shop"],
            "env": {**IN_CONTAINER["env"], "A": "1", "IMAGE": "{{ image }}"},
        }

    def test_prefect_home_may_be_another_one(self) -> None:
        where = containers(template={"job_variables": {"env": {"PREFECT_HOME": "/home"}}})
        assert self.config(where).job_variables["env"] == {"PREFECT_HOME": "/home"}

    def test_an_image_that_the_template_names_is_not_built(self) -> None:
        found = self.config(containers(template={"job_variables": {"image": "shop:1"}}))
        assert (found.job_variables["image"], image_of(found)) == ("shop:1", None)

    def test_the_version_follows_the_code_unless_it_is_written(self) -> None:
        assert self.config().follows_code
        assert not self.config(containers(template={"version": "7"})).follows_code

    def test_python_deployments_have_none(self) -> None:
        where = environment(templates=TEMPLATE)
        (found,) = but_the_deployer(work_out([with_image()], (), where, images=IMAGES))
        assert (found.steps, found.job_variables) == ((), {})

    def test_a_dockerfile_that_cannot_be_read_gives_none(self) -> None:
        (found,) = work_out([with_image()], (), containers()).deployments
        assert (found.deployment_type, found.steps) == ("docker", ())

    def test_what_is_made_of_one_flow_is_the_same(self) -> None:
        where = containers()
        found = from_template(
            root=ROOT, project="shop", environment=where, flow=with_image(), kind="docker", schemas={}, images=IMAGES
        )
        assert found == self.config(where)
        assert found.steps == self.config(where).steps


class TestImpliedImage:
    """A declared deployment in a pool of containers that says nothing of its image gets the one of its flow."""

    WHERE = environment(work_pools={"python": {"name": "processes", "type": "process"}, **DOCKER_POOL})

    def config(self, where: EnvironmentConfig | None = None, **said: Any) -> DeploymentConfig:
        asked = declaration(**{"work_pool": "containers", **said})
        (config,) = but_the_deployer(work_out([with_image()], [asked], where or self.WHERE, images=IMAGES))
        return config

    def test_as_by_template(self) -> None:
        found = self.config(job_variables={"env": {"A": "1"}, "networks": ["shop"]})
        assert found.job_variables == {**IN_CONTAINER, "networks": ["shop"], "env": {**IN_CONTAINER["env"], "A": "1"}}
        assert (found.pull_steps, found.steps) == (IN_APP, (implied_step(SPEC),))
        assert image_of(found) == SPEC
        assert found.follows_code

    def test_the_entrypoint_is_the_one_in_the_image(self) -> None:
        found = self.config(folder="flows", written_entrypoint="etl.py:etl")
        assert found.entrypoint == "flows/etl.py:etl"

    @pytest.mark.parametrize(
        "said",
        [
            {"build_steps": ({"shop.steps.build": {}},)},
            {"pull_steps": ({"a": {}},)},
            {"pull_steps": ()},
            {"job_variables": {"image": "shop:1"}},
            {"work_pool": "processes"},
            {"work_pool": "somewhere else"},
        ],
    )
    def test_not_where_it_says_something_else(self, said: dict[str, Any]) -> None:
        found = self.config(**said)
        assert image_of(found) is None
        assert "PREFECT_HOME" not in str(found.job_variables)

    def test_not_without_a_dockerfile(self) -> None:
        asked = declaration(work_pool="containers")
        (found,) = but_the_deployer(work_out([flow()], [asked], self.WHERE, images=IMAGES))
        assert (found.steps, found.job_variables) == ((), {})

    def test_a_version_that_is_written_does_not_follow_the_code(self) -> None:
        assert not self.config(version="7").follows_code
        assert not self.config(containers(deployments={"*": {"version": "7"}})).follows_code
        assert self.config(containers(deployments={"*": {"description": "7"}})).follows_code

    def test_an_override_may_name_another_image(self) -> None:
        where = containers(deployments={"etl/*": {"job_variables": {"image": "shop:1"}}})
        found = self.config(where)
        assert (found.job_variables, image_of(found)) == ({**IN_CONTAINER, "image": "shop:1"}, None)

    def test_an_override_may_name_the_image_of_the_flow(self) -> None:
        where = containers(deployments={"etl/*": {"job_variables": {"image": "{{ image }}", "env": {"A": "1"}}}})
        assert image_of(self.config(where)) == SPEC


class TestBuildSteps:
    BUILD, PUSH = {BUILD_STEPS[0]: {"image_name": "shop/etl"}}, {PUSH_STEPS[0]: {"image_name": "{{ image_name }}"}}

    def config(self, **said: Any) -> DeploymentConfig:
        variables = {"image": "{{ image }}"}
        return one(asked=declaration(build_steps=(self.BUILD,), job_variables=variables, **said))

    def test_are_read_in_the_folder_of_its_file(self) -> None:
        found = self.config(folder="jobs", push_steps=(self.PUSH,))
        spec = image_of(found)
        assert spec == ImageSpec(repository="shop/etl", dockerfile="jobs/Dockerfile", context="jobs")
        assert (spec.is_pushed, spec.source, spec.closures) == (True, "prefect.yaml:3", (("etl", "0123456789ab"),))
        assert found.steps[0].folder == "jobs"

    def test_those_of_prefect_stay_as_they_are(self) -> None:
        found = one(asked=declaration(build_steps=({"shop.steps.build": {"id": "x"}},)))
        assert [(step.function, step.id, step.image) for step in found.steps] == [("shop.steps.build", "x", None)]

    def test_its_job_variables_stay_as_they_are_written(self) -> None:
        assert self.config().job_variables == {"image": "{{ image }}"}


class TestVolumes:
    def volumes(self, written: Any, pool_type: str = "docker") -> Any:
        where = environment(work_pools={"python": {"name": "processes", "type": pool_type}})
        return one(asked=declaration(job_variables={"volumes": written}), where=where).job_variables["volumes"]

    @pytest.mark.parametrize(
        ("written", "whole"),
        [
            ("./data:/data", "/repo/data:/data"),
            ("./data/../x:/data:ro", "/repo/x:/data:ro"),
            ("./:/code", "/repo:/code"),
            (".:/code", "/repo:/code"),
            ("../other:/data", "/other:/data"),
            ("/data:/data", "/data:/data"),
            ("data:/data", "data:/data"),
            (".data:/data", ".data:/data"),
            ("{{ $DATA }}:/data", "{{ $DATA }}:/data"),
            (5, 5),
        ],
    )
    def test_start_at_the_repositorys_root(self, written: Any, whole: Any) -> None:
        assert self.volumes([written, "a:/b"]) == [whole, "a:/b"]

    @pytest.mark.parametrize("pool_type", ["process", "kubernetes", "ecs"])
    def test_elsewhere_they_stay_as_they_are(self, pool_type: str) -> None:
        assert self.volumes(["./data:/data"], pool_type) == ["./data:/data"]

    @pytest.mark.parametrize("written", ["./data:/data", None, {"./data": "/data"}, "{{ $VOLUMES }}"])
    def test_what_is_no_list_stays_as_it_is(self, written: Any) -> None:
        assert self.volumes(written) == written

    def test_of_templates_and_overrides_too(self) -> None:
        template = {"job_variables": {"volumes": ["./a:/a"]}}
        (found,) = work_out([with_image()], (), containers(template=template), images=IMAGES).deployments
        assert found.job_variables["volumes"] == ["/repo/a:/a"]
        where = containers(deployments={"*": {"job_variables": {"volumes": ["./b:/b"]}}}, template=template)
        (found,) = work_out([with_image()], (), where, images=IMAGES).deployments
        assert found.job_variables["volumes"] == ["/repo/b:/b"]


class TestResourceLimits:
    def variables(self, pool_type: str, **fields: Any) -> dict[str, Any]:
        where = environment(work_pools={"python": {"name": "processes", "type": pool_type}}, **fields)
        return dict(one(asked=declaration(job_variables={"env": {"A": "1"}}), where=where).job_variables)

    def test_become_dockers_job_variables(self) -> None:
        found = self.variables("docker", resource_limits={"memory": "512Mi", "cpu": "500m"}, image_pull_policy="Always")
        assert found == {
            "mem_limit": "512m",
            "container_create_kwargs": {"nano_cpus": 500_000_000},
            "image_pull_policy": "Always",
            "env": {"A": "1"},
        }

    def test_whole_cpus(self) -> None:
        found = self.variables("docker", resource_limits={"cpu": "1.5"})
        assert found["container_create_kwargs"] == {"nano_cpus": 1_500_000_000}

    def test_a_process_has_none(self) -> None:
        assert self.variables("process", resource_limits={"memory": "1Gi"}) == {"env": {"A": "1"}}

    def test_give_way_to_the_deployments_own(self) -> None:
        where = environment(
            work_pools={"python": {"name": "processes", "type": "docker"}}, resource_limits={"memory": "1Gi"}
        )
        assert one(asked=declaration(job_variables={"mem_limit": "2g"}), where=where).job_variables == {
            "mem_limit": "2g"
        }


class TestBrokenFlows:
    def test_are_left_out_and_named(self) -> None:
        desired = work_out(
            [flow(validation_errors=("x",)), flow("good")],
            [declaration(), declaration("g", entrypoint="flows/good.py:good")],
        )
        assert paths(desired) == ["good/g"]
        assert desired.skipped_paths == ("etl/daily",)

    def test_a_declaration_whose_flow_cannot_be_found(self) -> None:
        assert work_out([], [declaration()]).skipped_paths == ("*/daily",)
        assert work_out([], [declaration(flow_name="etl")]).skipped_paths == ("etl/daily",)

    def test_unreadable_files_are_named(self) -> None:
        faults = [problem(file_path="flows/a.py", skips=True), problem(file_path="flows/b.py"), problem(skips=True)]
        desired = work_out(problems=faults)
        assert desired.skipped_files == ("flows/a.py",)
        assert desired.problems == tuple(faults)

    def test_a_flow_that_imports_an_unreadable_file(self) -> None:
        helper = problem(file_path="shared/helper.py", skips=True)
        desired = work_out([flow(validation_errors=("shared/helper.py:2: x",))], problems=[helper])
        assert desired.skipped_files == ("shared/helper.py", "flows/etl.py")

    def test_an_instance_method_gets_no_deployment_by_template(self) -> None:
        method = flow(function_name="Sync.etl", needs_instance=True)
        where = environment(templates=TEMPLATE)
        assert paths(work_out([method], [], where)) == []
        assert paths(work_out([method], [declaration(entrypoint=method.entrypoint)], where)) == ["etl/daily"]
        assert paths(work_out([flow(function_name="Sync.etl")], [], where)) != []

    def test_a_declaration_with_a_fault_is_left_out_alone(self) -> None:
        faulty, sound = declaration(line_number=3), declaration("weekly", line_number=9)
        fault = problem(file_path="prefect.yaml", line_number=5, skips=True, declaration=faulty.location)
        desired = work_out([flow()], [faulty, sound], environment(templates=TEMPLATE), problems=[fault])
        assert paths(desired) == ["etl/weekly"]
        assert desired.skipped_paths == ("etl/daily",)
        assert desired.skipped_files == ()

    def test_a_flow_whose_only_declaration_has_a_fault_gets_nothing_by_template(self) -> None:
        fault = problem(file_path="prefect.yaml", skips=True, declaration=declaration().location)
        desired = work_out([flow()], [declaration()], environment(templates=TEMPLATE), problems=[fault])
        assert paths(desired) == []

    def test_a_declaration_with_a_warning_is_not_left_out(self) -> None:
        warning = problem(severity="warning", declaration=declaration().location)
        assert paths(work_out([flow()], [declaration()], problems=[warning])) == ["etl/daily"]

    def test_get_nothing_by_template(self) -> None:
        desired = work_out([flow(validation_errors=("x",))], (), environment(templates=TEMPLATE))
        assert paths(desired) == []


class TestDeployer:
    def deployer(self, **fields: Any) -> DeploymentConfig:
        return work_out([flow()], [declaration()], environment(**fields)).deployments[-1]

    def test_comes_last(self) -> None:
        found = self.deployer()
        assert (found.deployment_path, found.origin) == ("deploy-everything/development", "deployer")
        assert (found.entrypoint, found.work_pool) == (DEPLOYER_ENTRYPOINT, "processes")

    def test_runs_one_at_a_time(self) -> None:
        found = self.deployer()
        assert (found.concurrency_limit, found.concurrency_options) == (1, {"collision_strategy": "ENQUEUE"})

    def test_is_ours(self) -> None:
        assert self.deployer().tags == ("deployer", OWNER.tag)

    def test_knows_its_environment(self) -> None:
        assert self.deployer().parameters == {"environment": "development"}

    def test_a_scheduled_run_has_the_environments_mode(self) -> None:
        found = self.deployer(deployer={"schedule": {"cron": "0 4 * * *"}, "scheduled_mode": "plan"})
        assert found.schedules == (cron(parameters={"mode": "plan"}),)

    def test_without_a_schedule_it_has_none(self) -> None:
        assert self.deployer().schedules == ()

    def test_may_have_another_name(self) -> None:
        assert self.deployer(deployer={"name": "keeper"}).deployment_path == "deploy-everything/keeper"

    def test_without_a_pool_to_run_it_there_is_none(self) -> None:
        assert work_out(where=environment(work_pools={})).deployments == ()

    def test_its_version_is_the_digest_of_this_package(self) -> None:
        assert self.deployer().version == deployer_version()[:12]


class TestSelection:
    DESIRED = work_out(
        [flow("etl"), flow("other", dockerfile_path="Dockerfile")],
        [declaration()],
        environment(
            templates={**TEMPLATE, "docker": {"name": "image"}},
            work_pools={"python": {"name": "processes", "type": "process"}, **DOCKER_POOL},
        ),
    )

    def chosen(self, **selection: Any) -> list[str]:
        return [config.deployment_path for config in select(self.DESIRED, Selection(**selection)).deployments]

    def test_everything(self) -> None:
        everything = ["etl/daily", "other/development-python", "other/image", "deploy-everything/development"]
        assert self.chosen() == everything

    def test_by_pattern(self) -> None:
        assert self.chosen(only=("etl/*", "*/image")) == ["etl/daily", "other/image"]

    def test_by_kind(self) -> None:
        assert self.chosen(kind="docker") == ["other/image"]

    def test_declared_only(self) -> None:
        assert self.chosen(declared_only=True) == ["etl/daily", "deploy-everything/development"]

    def test_what_was_left_out_stays_known(self) -> None:
        desired = work_out([], [declaration()])
        assert select(desired, Selection(only=("x/*",))).skipped_paths == desired.skipped_paths
