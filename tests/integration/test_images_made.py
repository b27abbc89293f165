"""Images made on the real engine and pushed to a real registry: side by side, labelled, pinned; and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from orchestrator import live, pipeline
from orchestrator.config import Policy
from orchestrator.images import making, stages
from orchestrator.images.names import parse_image
from orchestrator.images.registry import Registries
from orchestrator.model import Desired

from .engine import BASE_IMAGE, EngineEnvironment, OwnImages, build_context
from .forwarder import Forwarder, forward_socket
from .registries import Pusher
from .shops import FLOW, Shop, registry_digest

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("no_hanging")]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Paths of unix sockets must be short."""
    folder = Path(tempfile.mkdtemp(prefix="o-"))
    yield folder
    shutil.rmtree(folder)


def desired_of(shop: Shop) -> Desired:
    return pipeline.read_repository(shop.root, shop.environment).desired


class Builds:
    """Holds builds back on their way to the engine: the first until there is another one, that until a third comes."""

    def __init__(self) -> None:
        self.begun = 0
        self.lines: list[str] = []
        self.ended_before: list[list[str]] = []  # of each build, what had ended when it began
        self._more = asyncio.Condition()

    def tell(self, name: str, line: str) -> None:
        self.lines.append(f"{name} {line}")

    async def hold(self, said: bytes) -> None:
        first_line = said.partition(b"\r\n")[0]
        if not (first_line.startswith(b"POST ") and b"/build?" in first_line):
            return
        async with self._more:
            self.begun += 1
            position = self.begun
            self.ended_before.append([line for line in self.lines if "Successfully built" in line])
            self._more.notify_all()
            await self._more.wait_for(lambda: self.begun > min(position, 2))


class TestSideBySide:
    async def test_as_many_as_the_environment_says(
        self,
        local_shop: Shop,
        engine_environment: EngineEnvironment,
        short_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        local_shop.add("report")
        local_shop.add("load")
        desired = await anyio.to_thread.run_sync(desired_of, local_shop)
        there = engine_environment.docker_host.removeprefix("unix://")
        builds = Builds()
        forwarder = Forwarder(lambda: asyncio.open_unix_connection(there), holds=builds.hold)
        images = await stages.decide_images(desired, local_shop.api.url)
        monkeypatch.setenv("DOCKER_BUILDKIT", "0")
        async with forward_socket(short_folder / "s", forwarder) as address:
            monkeypatch.setenv("DOCKER_HOST", address)
            results = await making.make_images(images, local_shop.root, desired.image_terms, tell=builds.tell)

        assert desired.image_terms.parallel == 2
        assert [result.status for result in results] == ["built"] * 3
        assert [len(ended) for ended in builds.ended_before] == [0, 0, 1]

    def test_one_that_fails_does_not_stop_the_others(self, shop: Shop) -> None:
        lines = "for i in $(seq 40); do echo line $i; done; echo No space left on device; exit 3"
        shop.add("report", f"RUN {lines}", base=BASE_IMAGE)
        shop.add("load")
        said = shop.apply()
        failed = said.images["report"]

        assert said.code == 4
        assert said.became == {"etl": "pushed", "load": "pushed", "report": "failed"}
        assert shop.deployed() == {"etl", "load"}
        assert "could not be made" in said.reason("report") and "exit code 3" in said.reason("report")
        assert failed["location"] == "flows/report.Dockerfile:4"
        assert "docker system df" in failed["remedy"]
        assert len(failed["output"]) == 30
        assert "No space left on device" in failed["output"]
        assert shop.json("history").document["revisions"][0]["status"] == "degraded"

        text = shop.run("apply", "--yes")
        assert text.code == 4
        for words in ("line 40", "flows/report.Dockerfile:4", "docker system df", "shop-report/"):
            assert words in text.out
        assert shop.plan().document["summary"] == {**said.document["summary"], "create": 1, "unchanged": 2}


class TestWhatIsMade:
    async def test_labels_tell_where_it_comes_from(self, shop: Shop) -> None:
        remote = "https://ada:hunter2@git.example.com/shop.git"
        commit = shop.commit(remote)
        said = await anyio.to_thread.run_sync(shop.json, "push")
        image = said.images["etl"]
        async with Registries() as registries:
            labels = await registries.labels_of(parse_image(image["name"]), image["digest"])

        assert labels == {
            "io.orchestrator.input-digest": image["input_digest"],
            "io.orchestrator.project": shop.project,
            "io.orchestrator.repository": shop.repository("etl"),
            "io.orchestrator.closure": labels["io.orchestrator.closure"],
            "io.orchestrator.test": shop.own.mark,
            "org.opencontainers.image.revision": commit,
            "org.opencontainers.image.source": "https://ada:********@git.example.com/shop.git",
        }
        assert list(json.loads(labels["io.orchestrator.closure"])) == ["shop-etl"]

    def test_flows_with_the_same_dockerfile_share_it(self, shop: Shop) -> None:
        shop.write(
            {
                "flows/both/Dockerfile": shop.own.dockerfile("COPY flows/both /srv/flows/both", base="scratch"),
                **{f"flows/both/{name}.py": FLOW.format(name=name) for name in ("one", "two")},
            }
        )
        said = shop.applied("--only", "shop-one/*", "--only", "shop-two/*")
        found = shop.in_engine("both", said.images["both"]["tag"])

        assert said.became == {"both": "pushed"}
        assert shop.pinned("one") == shop.pinned("two")
        assert found is not None
        closures = json.loads(found["Config"]["Labels"]["io.orchestrator.closure"])
        assert list(closures) == ["shop-one", "shop-two"]

    def test_files_that_are_not_committed_are_told(self, local_shop: Shop) -> None:
        commit = local_shop.commit()
        local_shop.change("etl")
        image = local_shop.json("build").images["etl"]
        found = local_shop.in_engine("etl", image["tag"])

        assert found is not None
        assert found["Config"]["Labels"]["org.opencontainers.image.revision"] == f"{commit}-dirty"

    def test_it_is_pinned_by_the_digest_that_the_registry_has(self, shop: Shop) -> None:
        image = shop.applied().images["etl"]
        digest = shop.digest("etl", image["tag"])

        assert shop.pinned("etl") == f"{shop.repository('etl')}@{digest}"
        assert (image["digest"], shop.deployment("etl")["version"]) == (digest, image["tag"])

    def test_without_a_registry_it_is_the_id_in_the_engine_and_said(self, local_shop: Shop) -> None:
        said = local_shop.run("apply", "--yes")
        found = local_shop.in_engine("etl", local_shop.plan().images["etl"]["tag"])

        assert said.code == 0
        assert found is not None and local_shop.pinned("etl") == found["Id"]
        assert "in this machine's engine only" in said.out


class TestRefusals:
    async def test_files_that_have_changed_since_the_plan(self, shop: Shop) -> None:
        desired = await anyio.to_thread.run_sync(desired_of, shop)
        plan = await live.plan_changes(desired, Policy(), api_url=shop.api.url)
        shop.change("etl")
        ready, (result,) = await stages.prepare(plan)
        applied = await live.apply_changes(ready, api_url=shop.api.url)

        assert (result.status, applied.status) == ("failed", "degraded")
        assert "has changed since this was planned" in result.error
        assert "do it again" in result.remedy
        assert shop.deployed() == set()
        assert not shop.own.client.images.list(name=shop.repository("etl"))

    async def test_a_registry_that_has_something_else_than_was_pushed(self, shop: Shop) -> None:
        """Somebody overwrites the tag at the very moment that the engine has pushed it."""
        desired = await anyio.to_thread.run_sync(desired_of, shop)
        images = await stages.decide_images(desired, shop.api.url)

        def tell(name: str, line: str) -> None:
            if "digest: sha256:" in line:
                host, _, path = images[0].spec.repository.partition("/")
                Pusher(host).image(path, images[0].tag, docker=True)

        (result,) = await making.make_images(images, shop.root, desired.image_terms, tell=tell)

        assert (result.status, result.pinned) == ("failed", "")
        assert "another image than was pushed" in result.error
        assert result.location == images[0].name

    @pytest.mark.parametrize("pinned", [False, True])
    def test_a_base_image_that_copies_by_itself(self, local_shop: Shop, registry: str, pinned: bool) -> None:
        base = f"{registry}/orchestrator/{local_shop.project}-base"
        build_base(local_shop.own, f"{base}:1", "ONBUILD COPY data/more /more")
        local_shop.own.client.images.push(base, tag="1")
        local_shop.own.remove()
        local_shop.write({"data/more": "more\n"})
        digest = registry_digest(base, "1")
        local_shop.add("etl", base=f"{base}@{digest}" if pinned else f"{base}:1")
        refused = local_shop.apply()

        assert refused.code == 4
        assert "ONBUILD COPY data/more" in refused.reason("etl")
        assert "whole_context: true" in refused.images["etl"]["remedy"]
        local_shop.configure(images={"builds": {"flows/etl.Dockerfile": {"whole_context": True}}})
        built = local_shop.applied().images["etl"]
        found = local_shop.in_engine("etl", built["tag"])
        assert found is not None and built["status"] == "built"
        assert found["Config"]["Labels"]["org.opencontainers.image.base.digest"] == digest
        local_shop.write({"data/more": "even more\n"})
        assert local_shop.plan().actions == {"etl": "build"}

    async def test_a_build_that_takes_too_long(self, local_shop: Shop) -> None:
        local_shop.add("etl", "RUN echo begun && sleep 3000", base=BASE_IMAGE)
        desired = await anyio.to_thread.run_sync(desired_of, local_shop)
        plan = await live.plan_changes(desired, Policy(), api_url=local_shop.api.url)
        hurried = replace(plan, image_terms=replace(plan.image_terms, timeout_seconds=2.0))
        ready, (result,) = await stages.prepare(hurried)

        assert "did not end within 2 seconds" in result.error
        assert "timeout_minutes" in result.remedy
        (change,) = ready.changes
        assert any("did not end within" in finding.message for finding in change.obstacles)


def build_base(own: OwnImages, name: str, *lines: str) -> None:
    text = own.dockerfile("COPY copied /base", *lines, base="scratch")
    own.client.images.build(fileobj=build_context(text, copied="1"), custom_context=True, tag=name, rm=True)
