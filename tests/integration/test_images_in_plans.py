"""What images mean for plans, revisions, promotions and the deployer flow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from prefect.client.schemas.objects import State

from orchestrator.builder import DeploymentBuilder
from orchestrator.deployer import deploy_everything

from .engine import BASE_IMAGE
from .shops import Shop, image_runs

pytestmark = pytest.mark.docker

NO_ENGINE = "unix:///nowhere/docker.sock"
FAILS = "RUN echo what it said; exit 3"


class TestPlans:
    def test_the_second_is_empty(self, shop: Shop) -> None:
        first = shop.plan("--detailed-exitcode")
        shop.applied()
        second, again = shop.plan("--detailed-exitcode"), shop.applied()

        assert (first.code, second.code) == (3, 0)
        assert second.actions == {"etl": "reuse"}
        assert (again.document["status"], again.document["revision"], again.became) == ("no-changes", None, {})
        (status,) = shop.json("status").document["deployments"]
        assert status["in_sync"] is True

    def test_a_reviewed_one_holds_though_somebody_builds_the_image_meanwhile(self, shop: Shop) -> None:
        plan = str(shop.root / "plan.json")
        assert shop.plan("--out", plan).actions == {"etl": "build"}
        pushed = shop.json("push").images["etl"]
        said = shop.json("apply", "--plan", plan)

        assert (said.code, said.became) == (0, {"etl": "reused"})
        assert shop.pinned("etl") == f"{shop.repository('etl')}@{pushed['digest']}"

    def test_a_reviewed_one_is_refused_when_what_an_image_is_built_from_has_changed(self, shop: Shop) -> None:
        plan = str(shop.root / "plan.json")
        shop.plan("--out", plan)
        shop.change("etl")
        said = shop.json("apply", "--plan", plan)

        assert said.code == 5
        assert shop.deployed() == set()

    def test_a_reviewed_update_holds_as_well(self, shop: Shop) -> None:
        shop.applied()
        shop.change("etl")
        plan = str(shop.root / "plan.json")
        shop.plan("--out", plan)
        said = shop.json("apply", "--plan", plan)

        assert (said.code, said.became) == (0, {"etl": "pushed"})
        assert shop.plan("--detailed-exitcode").code == 0

    def test_exactly_the_images_that_contain_a_file_are_built(self, shop: Shop) -> None:
        shop.write({"data/shared": "1\n"})
        for name in ("etl", "report"):
            shop.add(name, "COPY data/shared /srv/")
        shop.add("load")
        shop.applied()
        before = {name: shop.pinned(name) for name in ("etl", "report", "load")}
        shop.change("shared")
        said = shop.applied()
        after = {name: shop.pinned(name) for name in before}

        assert said.became == {"etl": "pushed", "report": "pushed", "load": "reused"}
        assert {name for name in before if before[name] != after[name]} == {"etl", "report"}

    def test_only_images_of_what_is_asked_for_are_built(self, shop: Shop) -> None:
        shop.add("report")
        said = shop.applied("--only", "shop-etl/*")

        assert said.became == {"etl": "pushed"}
        assert not shop.own.client.images.list(name=shop.repository("report"))

    def test_an_image_that_is_never_pulled_is_not_asked_for_always(self, local_shop: Shop) -> None:
        local_shop.configure(image_pull_policy="Always")
        said = local_shop.apply()

        assert (said.code, said.became) == (4, {})
        assert "image_pull_policy" in said.reason("etl")
        assert not local_shop.own.client.images.list(name=local_shop.repository("etl")), "it is not built in vain"

    def test_atomic_writes_nothing_where_an_image_fails(self, shop: Shop) -> None:
        shop.add("report", FAILS, base=BASE_IMAGE)
        said = shop.apply("--atomic")

        assert said.code == 4
        assert said.became["report"] == "failed"
        assert shop.deployed() == set()
        assert "--atomic" in said.reason("etl")
        assert shop.json("history").document["revisions"] == []


class TestEnvironments:
    def test_two_share_an_image(self, shop: Shop) -> None:
        other = f"{shop.environment}-2"
        shop.configure(other)
        first, second = shop.applied(), shop.applied(environment=other)

        assert (first.became, second.became) == ({"etl": "pushed"}, {"etl": "reused"})
        assert shop.pinned("etl") == shop.pinned("etl", other)
        assert shop.plan("--detailed-exitcode").code == 0

    def test_promotion_takes_the_digest_and_builds_nothing(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        production = f"{shop.environment}-production"
        shop.configure(production)
        shop.commit()
        shop.applied()
        shop.change("etl")
        shop.commit()
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
        said = shop.json("promote", "--from", shop.environment, "--yes", environment=production)

        assert said.code == 0, said.all
        assert shop.pinned("etl", production) == shop.pinned("etl")
        assert shop.deployment("etl", production)["version"] == shop.deployment("etl")["version"]

    def test_rollback_goes_back_to_the_older_image_and_builds_nothing(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop.applied()
        older = shop.deployment("etl")
        shop.change("etl")
        shop.applied()
        newer = shop.pinned("etl")
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
        said = shop.json("rollback", "--yes")

        assert said.code == 0, said.all
        assert shop.pinned("etl") == older["job_variables"]["image"] != newer
        assert shop.deployment("etl")["version"] == older["version"]

    async def test_from_code(self, shop: Shop) -> None:
        builder = DeploymentBuilder(root=shop.root, api_url=shop.api.url)
        result = await anyio.to_thread.run_sync(builder.deploy_all, "all", shop.environment)

        assert [image.status for image in result.images] == ["pushed"]
        tag = result.images[0].name.rpartition(":")[2]
        assert shop.pinned("etl") == f"{shop.repository('etl')}@{shop.digest('etl', tag)}"


# --- deploy-everything -----------------------------------------------------------------------------------


@pytest.fixture
async def deployer_shop(shop: Shop, events_sent: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    monkeypatch.chdir(shop.root)
    yield shop


def artifacts(shop: Shop, run_id: str) -> dict[str, str]:
    rows = shop.api.post("/artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}})
    return {row["key"].partition("-")[0]: row["data"] for row in rows}


class TestDeployer:
    async def sync(self, shop: Shop) -> State[Any]:
        state: State[Any] = await deploy_everything(mode="apply", environment=shop.environment, return_state=True)
        return state

    async def test_a_task_for_each_image(self, deployer_shop: Shop) -> None:
        shop = deployer_shop
        await anyio.to_thread.run_sync(shop.json, "push")
        shop.add("report")
        shop.add("load", FAILS, base=BASE_IMAGE)
        state = await self.sync(shop)
        run_id = str(state.state_details.flow_run_id)
        runs = await image_runs(shop, run_id, 3)
        told = artifacts(shop, run_id)

        assert (state.type.value, state.name) == ("FAILED", "Degraded")
        assert "what it said" in str(runs["load"]["state"]["message"])
        assert {name: run["state"]["name"] for name, run in runs.items()} == {
            "etl": "Reused",
            "report": "Pushed",
            "load": "Failed",
        }
        assert runs["report"]["name"] == f"{shop.project}-flows-report:{shop.deployment('report')['version']}"
        assert runs["report"]["state"]["message"] == shop.pinned("report")
        for name in ("etl", "report", "load"):
            assert all(f"{shop.project}-flows-{name}:" in told[kind] for kind in ("plan", "deployments"))
        assert "exit code 3" in told["deployments"]

    async def test_nothing_to_do(self, deployer_shop: Shop) -> None:
        await anyio.to_thread.run_sync(deployer_shop.applied)
        state = await self.sync(deployer_shop)

        assert (state.type.value, state.name) == ("COMPLETED", "NoChanges")
        plan = artifacts(deployer_shop, str(state.state_details.flow_run_id))["plan"]
        assert f"{deployer_shop.project}-flows-etl:" in plan
