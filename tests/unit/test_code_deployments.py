"""Deployments listed in code: what they ask for, and every fault of a list."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect import Flow, flow
from prefect.utilities.callables import parameter_schema

from orchestrator import FlowDeployment
from orchestrator.code_deployments import desired_from_code
from orchestrator.errors import ConfigurationError
from orchestrator.model import DeploymentConfig, Owner
from tests.unit.builders import write_files

ROOT = Path(__file__).parents[2]
OWNER = Owner(project="shop/code", environment="staging")
MODULE = '''
    from prefect import flow

    @flow(version="7")
    def load_orders(day: str, rows: int = 5) -> int:
        """Loads the orders."""
        return rows

    @flow(name="takes anything")
    def anything(**options): ...

    class Team:
        @flow
        @staticmethod
        def reporting(): ...

    def inside():
        @flow
        def hidden(): ...
        return hidden

    hidden = None
    weekly = load_orders.with_options(name="load-weekly")
'''


@flow
def here(rows: int = 5) -> None:
    """Of this very file."""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with flows, as a script imports it."""
    write_files(tmp_path, {"code_shop/__init__.py": "", "code_shop/flows.py": MODULE})
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("code_shop.flows")
    for name in [name for name in sys.modules if name.partition(".")[0] == "code_shop"]:
        del sys.modules[name]


def made(root: Path, *configs: FlowDeployment) -> tuple[DeploymentConfig, ...]:
    return desired_from_code(configs, work_pool="processes", owner=OWNER, root=root).deployments


def only(root: Path, flow_func: Flow[..., Any], **fields: Any) -> DeploymentConfig:
    (found,) = made(root, FlowDeployment(flow_func=flow_func, deployment_name="daily", **fields))
    return found


def faults_of(root: Path, *configs: FlowDeployment) -> list[tuple[str, str]]:
    """Code and message of each."""
    with pytest.raises(ConfigurationError) as caught:
        made(root, *configs)
    return [(fault.code, fault.message) for fault in caught.value.faults]


class TestDeployment:
    def test_is_the_flows(self, tmp_path: Path, shop: ModuleType) -> None:
        found = only(tmp_path, shop.load_orders)

        assert found.deployment_path == "load-orders/daily"
        assert found.entrypoint == "code_shop/flows.py:load_orders"
        assert found.pull_steps == ({"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path)}},)
        assert (found.work_pool, found.work_queue) == ("processes", "default")
        assert (found.description, found.version) == ("Loads the orders.", "7")
        assert found.tags == ("orchestrator:shop/code:staging",)
        assert found.source == "code_shop/flows.py:3"

    def test_has_prefects_parameter_schema(self, tmp_path: Path, shop: ModuleType) -> None:
        expected = parameter_schema(shop.load_orders).model_dump(exclude_unset=True)
        assert only(tmp_path, shop.load_orders).parameter_schema == expected
        assert set(expected["properties"]) == {"day", "rows"}

    def test_says_what_the_list_says(self, tmp_path: Path, shop: ModuleType) -> None:
        found = only(
            tmp_path,
            shop.load_orders,
            description="Of the shop.",
            parameters={"day": "monday"},
            schedules=[{"cron": "0 4 * * *", "slug": "early"}, {"interval": "PT1H"}],
            tags=["b", "a", "b"],
            job_variables={"image": "shop:1"},
            work_queue="slow",
            paused=True,
            concurrency_limit=2,
            version="2026.1",
        )
        assert (found.description, found.version, found.paused) == ("Of the shop.", "2026.1", True)
        assert found.parameters == {"day": "monday"}
        assert [schedule.rule for schedule in found.schedules] == ["cron 0 4 * * *", "every 3600 s UTC"]
        assert found.tags == ("b", "a", OWNER.tag)
        assert (found.deployment_type, found.work_queue, found.concurrency_limit) == ("docker", "slow", 2)

    def test_without_a_version_has_the_hash_that_prefect_gives_the_flow(self, tmp_path: Path, shop: ModuleType) -> None:
        assert only(tmp_path, shop.anything).version == shop.anything.version != ""


class TestEntrypoint:
    """What a worker imports; each is tried with Prefect's own loader in the integration tests."""

    def test_of_a_method(self, tmp_path: Path, shop: ModuleType) -> None:
        assert only(tmp_path, shop.Team.reporting).entrypoint == "code_shop/flows.py:Team.reporting"

    def test_of_a_copy_is_the_copys_own_name(self, tmp_path: Path, shop: ModuleType) -> None:
        found = only(tmp_path, shop.weekly)
        assert (found.flow_name, found.entrypoint) == ("load-weekly", "code_shop/flows.py:weekly")

    def test_of_a_copy_in_another_module_leads_there(self, tmp_path: Path, shop: ModuleType) -> None:
        text = "from code_shop.flows import load_orders\nmonthly = load_orders.with_options(name='monthly')\n"
        write_files(tmp_path, {"code_shop/copies.py": text})
        copies = importlib.import_module("code_shop.copies")

        found = only(tmp_path, copies.monthly)
        assert (found.entrypoint, found.source) == ("code_shop/copies.py:monthly", "code_shop/copies.py")

    def test_of_an_imported_flow_leads_to_its_own_module(
        self, tmp_path: Path, shop: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules["__main__"], "load_orders", shop.load_orders, raising=False)
        assert only(tmp_path, shop.load_orders).entrypoint == "code_shop/flows.py:load_orders"

    def test_is_relative_to_the_root(self) -> None:
        assert only(ROOT, here).entrypoint == "tests/unit/test_code_deployments.py:here"


class TestFaults:
    def test_are_told_together(self, tmp_path: Path, shop: ModuleType) -> None:
        found = faults_of(
            tmp_path,
            FlowDeployment(flow_func=shop.load_orders, deployment_name="a", parameters={"dya": 1}),
            FlowDeployment(flow_func=shop.inside(), deployment_name="b"),
            FlowDeployment(flow_func=shop.load_orders, deployment_name="a"),
            FlowDeployment(flow_func=shop.load_orders.fn, deployment_name="c"),
        )
        assert sorted(found) == [
            ("DPL001", "entry 2 (b): no name of its module leads to the flow 'hidden'."),
            ("DPL001", "entry 4 (c): flow_func is no flow but a function."),
            ("DPL002", "entry 3 (a): load-orders/a is listed twice, first as entry 1."),
            ("DPL003", "entry 1 (a): the flow has no parameter 'dya'."),
        ]

    def test_a_wrong_schedule(self, tmp_path: Path, shop: ModuleType) -> None:
        schedules = [{"cron": "0 4 * * *", "interval": 60}, {"corn": "0 4 * * *"}]
        config = FlowDeployment(flow_func=shop.load_orders, deployment_name="a", schedules=schedules)

        found = faults_of(tmp_path, config)
        assert ("CFG002", "entry 1 (a): Unknown key 'corn'.") in found
        assert any(code == "CFG003" and "exactly one of cron" in message for code, message in found)

    def test_a_file_outside_of_the_root(self, tmp_path: Path, shop: ModuleType) -> None:
        config = FlowDeployment(flow_func=shop.load_orders, deployment_name="a")

        ((code, message),) = faults_of(tmp_path / "elsewhere", config)
        assert code == "DPL001" and "lies outside of" in message

    def test_keywords_of_any_name_are_none(self, tmp_path: Path, shop: ModuleType) -> None:
        assert only(tmp_path, shop.anything, parameters={"what": "ever"}).parameters == {"what": "ever"}


def test_the_path_is_the_one_that_run_deployment_takes(shop: ModuleType) -> None:
    assert FlowDeployment(flow_func=shop.weekly, deployment_name="x").deployment_path == "load-weekly/x"
