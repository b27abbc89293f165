"""`build` and `push` of a prefect.yaml: images take our way, all else is run by Prefect, when it must and once."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from .api import unique
from .shops import FLOW, POOL, PYTHON_POOL, Shop, registry_digest

pytestmark = pytest.mark.docker

SHELL = "prefect.deployments.steps.run_shell_script"
BUILD = "prefect_docker.deployments.steps.build_docker_image"
PUSH = "prefect_docker.deployments.steps.push_docker_image"
PUSH_IT = {PUSH: {"image_name": "{{ build-image.image_name }}", "tag": "{{ build-image.tag }}"}}
OWN_IMAGE = {"image": "{{ build-image.image }}"}


class Steps:
    """A prefect.yaml whose steps are those of Prefect's documentation, and a script that counts how often it ran."""

    def __init__(self, shop: Shop, extra: str = "") -> None:
        self.shop = shop
        self.count = shop.root.parent / "ran"  # outside: it is no change of the repository
        self.repository = f"{shop.prefix}/{shop.project}-declared" if shop.registry else f"{shop.project}-declared"
        self.script = f"sh -c 'echo once more >> {self.count}; {extra} git rev-parse --short HEAD'"
        shop.add("report")
        shop.configure(templates={})

    @property
    def runs(self) -> int:
        return len(self.count.read_text().splitlines()) if self.count.exists() else 0

    @property
    def hash_step(self) -> dict[str, Any]:
        return {SHELL: {"id": "get-commit-hash", "script": self.script}}

    def build_step(self, **inputs: Any) -> dict[str, Any]:
        plain = {"id": "build-image", "requires": "prefect-docker", "image_name": self.repository}
        return {BUILD: {**plain, "dockerfile": "flows/report.Dockerfile", **inputs}}

    def write(self, *deployments: dict[str, Any], **top: Any) -> None:
        steps = {"build": [self.hash_step, self.build_step(tag="{{ get-commit-hash.stdout }}")], "push": [PUSH_IT]}
        document = {**(steps if self.shop.registry else {"build": steps["build"]}), **top}
        self.shop.write({"prefect.yaml": yaml.safe_dump({**document, "deployments": deployments}, sort_keys=False)})

    def deployment(self, flow: str = "report", pool: str = POOL, **more: Any) -> dict[str, Any]:
        variables = more.pop("job_variables", OWN_IMAGE)
        where = {"name": pool, "job_variables": variables}
        return {"name": self.shop.environment, "entrypoint": f"flows/{flow}.py:{flow}", "work_pool": where, **more}


class TestPrefectsOwnExample:
    def test_it_is_pinned_and_has_the_tag_of_the_commit_too(self, shop: Shop) -> None:
        steps = Steps(shop)
        steps.write(steps.deployment(), steps.deployment("etl"))
        commit, plan = shop.commit(), str(shop.root.parent / "plan.json")
        shop.plan("--out", plan)
        said = shop.json("apply", "--plan", plan)
        assert said.code == 0, said.all
        digest = registry_digest(steps.repository, shop.git("rev-parse", "--short", commit))

        assert said.became == {"declared": "pushed"}
        assert shop.pinned("report") == shop.pinned("etl") == f"{steps.repository}@{digest}"
        assert shop.deployment("report")["version"] == said.images["declared"]["tag"]
        assert steps.runs == 1, "two deployments have the same steps"

        again = shop.applied()
        assert (again.document["status"], steps.runs) == ("no-changes", 1)
        assert shop.plan("--detailed-exitcode").code == 0

    def test_what_is_built_before_gets_its_tag_when_it_is_pushed(self, shop: Shop) -> None:
        steps = Steps(shop)
        steps.write(steps.deployment())
        commit = shop.commit()
        built = shop.run("build")
        assert "is not tagged {{ get-commit-hash.stdout }}: no step" in built.all
        assert shop.json("build").became == {"declared": "reused"}
        said = shop.applied()

        assert said.became == {"declared": "pushed"}
        tag = shop.git("rev-parse", "--short", commit)
        assert shop.pinned("report") == f"{steps.repository}@{registry_digest(steps.repository, tag)}"

    def test_an_image_that_is_named_by_the_tag_of_its_step(self, shop: Shop) -> None:
        steps = Steps(shop)
        named = steps.deployment(job_variables={"image": f"{steps.repository}:dev"})
        steps.write(named, build=[steps.build_step(tag="dev")])
        shop.applied()

        assert shop.pinned("report") == f"{steps.repository}@{registry_digest(steps.repository, 'dev')}"
        assert shop.plan("--detailed-exitcode").code == 0

    def test_a_dockerfile_that_prefect_would_write(self, local_shop: Shop) -> None:
        steps = Steps(local_shop)
        steps.write(steps.deployment(), build=[steps.build_step(dockerfile="auto")])
        said = local_shop.applied()
        found = steps.shop.own.client.images.get(said.images["declared"]["digest"])
        try:
            assert local_shop.pinned("report") == found.id
            assert not (local_shop.root / "Dockerfile").exists()
            assert found.labels["io.orchestrator.project"] == local_shop.project
        finally:
            steps.shop.own.client.images.remove(found.id, force=True)

    def test_a_commit_alone_builds_nothing(self, local_shop: Shop) -> None:
        steps = Steps(local_shop)
        steps.write(steps.deployment())
        local_shop.commit()
        local_shop.applied()
        local_shop.write({"README.md": "Not in the image.\n"})
        local_shop.commit()

        assert local_shop.applied().document["status"] == "no-changes"
        assert steps.runs == 1


class TestScripts:
    def test_what_one_prints_is_in_a_variable(self, local_shop: Shop) -> None:
        steps = Steps(local_shop)
        variables = {"env": {"GIT_COMMIT": "{{ get-commit-hash.stdout }}"}}
        steps.write(steps.deployment(job_variables=variables), build=[steps.hash_step])
        commit = local_shop.commit()
        local_shop.plan()
        assert steps.runs == 0, "a plan runs nothing"
        assert f"get-commit-hash | {commit[:7]}" in local_shop.applied().error, "standard output is one JSON document"
        assert local_shop.deployment("report")["job_variables"]["env"]["GIT_COMMIT"] == commit[:7]
        assert local_shop.applied().document["status"] == "no-changes"
        assert steps.runs == 1

        steps.write(steps.deployment(job_variables=variables, description="Otherwise."), build=[steps.hash_step])
        later = local_shop.commit()
        planned = local_shop.run("plan")
        assert "{{ get-commit-hash.stdout }}" in planned.out, "what it gives is not known before it has run"
        told = local_shop.run("apply", "--yes")
        assert f"get-commit-hash | {later[:7]}" in told.out
        assert local_shop.deployment("report")["job_variables"]["env"]["GIT_COMMIT"] == later[:7]
        assert local_shop.plan("--detailed-exitcode").code == 0
        assert steps.runs == 2

    def test_one_that_fails_concerns_its_own_deployments_only(self, local_shop: Shop) -> None:
        steps = Steps(local_shop, "echo what went wrong >&2; exit 7;")
        sound = steps.deployment("etl", job_variables=OWN_IMAGE, build=[steps.build_step()])
        steps.write(steps.deployment(), sound)
        said = local_shop.apply()

        assert said.code == 4
        assert local_shop.deployed() == {"etl"}
        assert said.became == {"declared": "built"}, "another deployment needs it"
        for words in ("get-commit-hash", "error code 7", "what went wrong"):
            assert words in said.reason("report")

    def test_nothing_is_built_for_one_that_fails(self, local_shop: Shop) -> None:
        steps = Steps(local_shop, "exit 7;")
        steps.write(steps.deployment())
        said = local_shop.apply()

        assert (said.code, said.became) == (4, {"declared": "failed"})
        assert not local_shop.own.client.images.list(name=steps.repository)

    def test_none_runs_behind_an_image_that_fails(self, local_shop: Shop) -> None:
        steps = Steps(local_shop)
        local_shop.write({"flows/report.Dockerfile": local_shop.own.dockerfile("RUN true", base="scratch")})
        after = {SHELL: {"id": "after", "script": steps.script}}
        steps.write(steps.deployment(), build=[steps.build_step(), after])
        said = local_shop.apply()

        assert said.code == 4
        assert "could not be made" in said.reason("report")
        assert steps.runs == 0

    def test_none_runs_for_what_cannot_be_written(self, local_shop: Shop) -> None:
        steps = Steps(local_shop)
        steps.write(steps.deployment(pool=unique("no-such-pool")))
        said = local_shop.apply()

        assert (said.code, steps.runs) == (4, 0)
        assert not local_shop.own.client.images.list(name=steps.repository)

    def test_an_output_that_none_gives(self, local_shop: Shop) -> None:
        steps = Steps(local_shop)
        variables = {"env": {"GIVEN": "{{ unknown.nothing }}"}}
        unknown = {"prefect.deployments.steps.utility.run_shell_script": {"id": "unknown", "script": "true"}}
        steps.write(steps.deployment(job_variables=variables), build=[unknown])
        said = local_shop.apply()

        assert said.code == 4
        assert "unknown.nothing" in said.reason("report")
        assert local_shop.deployed() == set()

    def test_variables_are_those_of_the_server_that_is_deployed_to(self, local_shop: Shop) -> None:
        name, steps = unique("greeting").replace("-", "_"), Steps(local_shop)
        local_shop.api.post("/variables/", name=name, value="hello from there")
        script = {SHELL: {"id": "greet", "script": f"echo {{{{ prefect.variables.{name} }}}}"}}
        variables = {"env": {"GREETING": "{{ greet.stdout }}"}}
        steps.write(steps.deployment(job_variables=variables), build=[script])
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            said = local_shop.apply("--api-url", local_shop.api.url)

        assert said.code == 0, said.all
        assert local_shop.deployment("report")["job_variables"]["env"]["GREETING"] == "hello from there"


class TestBuildsOfPrefect:
    def test_what_we_have_no_word_for(self, shop: Shop) -> None:
        steps = Steps(shop)
        steps.write(steps.deployment(), build=[steps.build_step(tag="v1", network_mode="host", pull=False)])
        said = shop.applied()

        assert said.became == {}
        assert shop.pinned("report") == f"{steps.repository}:v1"
        assert registry_digest(steps.repository, "v1") is not None
        assert shop.applied().document["status"] == "no-changes"


class TestPromotion:
    def test_what_a_step_gave_is_taken_over(self, local_shop: Shop) -> None:
        steps, production = Steps(local_shop), f"{local_shop.environment}-production"
        local_shop.api.ensure_pool(PYTHON_POOL)
        for name in ("plain", "fresh"):
            local_shop.write({f"flows/{name}.py": FLOW.format(name=name)})
        variables = {"env": {"GIT_COMMIT": "{{ get-commit-hash.stdout }}"}}
        plain, fresh = (steps.deployment(name, PYTHON_POOL, job_variables=variables) for name in ("plain", "fresh"))
        steps.write(plain, *({**each, "name": production} for each in (plain, fresh)), build=[steps.hash_step])
        for name in (local_shop.environment, production):
            local_shop.configure(name, templates={}, select=[f"*/{name}"])
        commit = local_shop.commit()
        local_shop.applied()
        said = local_shop.json("promote", "--from", local_shop.environment, "--yes", environment=production)

        assert said.code == 4
        assert local_shop.deployment("plain", production)["job_variables"]["env"]["GIT_COMMIT"] == commit[:7]
        (problem,) = said.document["problems"]
        assert "shop-fresh" in problem["message"] and "get-commit-hash.stdout" in problem["message"]
        assert f"shop-fresh/{production}" not in {row["deployment"] for row in said.document["results"]}
        assert steps.runs == 1
