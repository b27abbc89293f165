"""What images need, decided without building: by the registry, the engine, the files and the base images."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import pytest
from prefect.client.schemas.objects import State
from prefect_docker.credentials import DockerRegistryCredentials
from pydantic import SecretStr

from orchestrator.deployer import deploy_everything

from .api import unique
from .conftest import PrefectServer
from .engine import OwnImages, build_context
from .registries import Pusher, registry_process
from .shops import POOL, Said, Shop, image_runs, registry_digest

pytestmark = pytest.mark.docker

PASSWORD = "open-sesame-1001"
PASSWORD_BCRYPT = "$2b$04$zY4qMuZWLih9FBxXOr9Z6uVy2J9.OZuz93D1xzyNmYPS/PH8QVKe2"


def findings(said: Said, name: str = "etl") -> list[tuple[str, str]]:
    return [(each["severity"], each["message"]) for each in said.images[name]["findings"]]


def overwrite(shop: Shop, name: str = "etl") -> None:
    """Somebody gives the tag of an image to another one."""
    image = shop.plan().images[name]
    host, _, path = image["name"].partition("/")
    Pusher(host).image(path, image["tag"], labels={}, docker=True)


class TestWhereItIs:
    def test_nowhere(self, shop: Shop) -> None:
        image = shop.plan().images["etl"]

        assert (image["action"], image["pinned"], image["findings"]) == ("build", None, [])
        assert image["tag"] == image["input_digest"][:12]
        assert shop.in_engine("etl", image["tag"]) is None, "a plan builds nothing"

    def test_in_the_engine(self, shop: Shop) -> None:
        assert shop.json("build").became == {"etl": "built"}
        image = shop.plan().images["etl"]

        assert (image["action"], image["pinned"]) == ("push", None)
        assert shop.digest("etl", image["tag"]) is None

    def test_in_the_engine_where_there_is_no_registry(self, local_shop: Shop) -> None:
        built = local_shop.json("build").images["etl"]
        image = local_shop.plan().images["etl"]

        assert (image["action"], image["pinned"]) == ("reuse", built["digest"])
        found = local_shop.in_engine("etl", image["tag"])
        assert found is not None and found["Id"] == built["digest"]

    def test_in_the_registry_which_needs_no_engine(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        pushed = shop.json("push").images["etl"]
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        image = shop.plan().images["etl"]

        assert (image["action"], image["findings"]) == ("reuse", [])
        assert image["pinned"] == f"{shop.repository('etl')}@{pushed['digest']}"
        shop.applied()
        assert shop.pinned("etl") == image["pinned"]

    def test_in_the_registry_for_another_checkout(self, shop: Shop, tmp_path: Path) -> None:
        shop.json("push")
        copytree(shop.root, tmp_path / "elsewhere")
        shop.root = tmp_path / "elsewhere"

        assert shop.plan().actions == {"etl": "reuse"}
        shop.change("etl")
        assert shop.plan().actions == {"etl": "build"}


class TestAnOverwrittenTag:
    def test_it_is_pushed_again_and_the_deployment_stays_as_it_is(self, shop: Shop) -> None:
        shop.applied()
        before = shop.deployment("etl")
        overwrite(shop)
        planned = shop.plan()
        ((severity, message),) = findings(planned)

        assert planned.actions == {"etl": "push"}
        assert severity == "warning" and "overwritten" in message
        assert planned.code == 0
        said = shop.applied()
        assert said.became == {"etl": "pushed"}
        assert (shop.pinned("etl"), shop.deployment("etl")["updated"]) == (
            before["job_variables"]["image"],
            before["updated"],
        )
        assert shop.plan().actions == {"etl": "reuse"}

    def test_it_is_built_again_where_nobody_has_it_any_more(self, shop: Shop) -> None:
        shop.applied()
        shop.own.remove()
        overwrite(shop)
        assert shop.plan().actions == {"etl": "build"}
        said = shop.applied()

        assert said.became == {"etl": "pushed"}
        assert shop.pinned("etl").endswith(f"@{shop.digest('etl', said.images['etl']['tag'])}")


class TestNoRegistry:
    """The registry of the images does not answer."""

    @pytest.fixture
    def silent(self, shop: Shop, tmp_path: Path) -> Iterator[None]:
        """The images are deployed, and then their registry goes away."""
        with registry_process(tmp_path) as host:
            shop.registry = host
            shop.configure()
            shop.applied()
        yield

    def test_what_is_deployed_stays_so(self, shop: Shop, silent: None) -> None:
        said = shop.plan("--detailed-exitcode")
        ((severity, message),) = findings(said)

        assert (said.code, said.actions, said.document["summary"]["unchanged"]) == (0, {"etl": "unknown"}, 1)
        assert severity == "warning" and "Nothing answers" in message
        assert said.images["etl"]["pinned"] == shop.pinned("etl")
        assert "its registry does not answer" in shop.run("plan").out, "a person sees it, too"
        assert json.loads(shop.json("status").out)["deployments"][0]["in_sync"] is True

    def test_what_would_change_is_an_error_and_other_deployments_go_on(self, shop: Shop, silent: None) -> None:
        pinned = shop.pinned("etl")
        shop.change("etl")
        shop.declare_plain()
        said = shop.apply()

        assert said.code == 4
        assert "Nothing answers" in said.reason("etl")
        assert (shop.pinned("etl"), shop.deployed()) == (pinned, {"etl", "plain"})


class TestNoEngine:
    def test_what_needs_no_build_is_deployed(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        shop.add("report")
        shop.declare_plain()
        shop.json("push", "--dockerfile", "flows/etl.Dockerfile")
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        said = shop.apply()

        assert said.code == 4
        assert shop.deployed() == {"etl", "plain"}
        assert "unix:///nowhere/docker.sock" in said.reason("report")

    def test_the_plan_says_so(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        said = shop.plan()

        assert (said.code, said.actions) == (0, {"etl": "build"})
        assert [severity for severity, _ in findings(said)] == ["error"]


class TestFiles:
    def test_what_a_dockerfile_copies_is_missing(self, shop: Shop) -> None:
        shop.add("report")
        (shop.root / "data" / "etl").unlink()
        said = shop.apply()

        assert said.code == 4
        assert said.became == {"report": "pushed"}
        assert shop.deployed() == {"report"}
        assert "flows/etl.Dockerfile:3" in said.all and "data/etl" in said.all

    def test_there_is_no_such_dockerfile(self, shop: Shop) -> None:
        build = {"image_name": shop.repository("report"), "dockerfile": "flows/nosuch.Dockerfile"}
        shop.add("report")
        pool = {"name": POOL, "job_variables": {"image": "{{ image }}"}}
        steps = [{"prefect_docker.deployments.steps.build_docker_image": build}]
        shop.declare("report", work_pool=pool, build=steps)
        said = shop.apply()

        assert said.code == 4
        assert said.became == {"etl": "pushed"}
        assert shop.deployed() == {"etl"}
        assert "flows/nosuch.Dockerfile" in said.all


class TestBaseImages:
    def test_one_that_has_moved_in_its_registry_is_a_change(self, shop: Shop) -> None:
        base = f"{shop.prefix}/{shop.project}-base"
        for tag in ("1", "2"):
            push_base(shop.own, base, tag)
        shop.add("etl", base=f"{base}:1")
        before = shop.applied().images["etl"]
        assert shop.plan().actions == {"etl": "reuse"}

        retag(base, "2", "1")  # the engine's own `1` is still the old one
        assert shop.plan().actions == {"etl": "build"}
        after = shop.applied().images["etl"]
        found = shop.in_engine("etl", after["tag"])

        assert after["tag"] != before["tag"]
        assert found is not None
        assert found["Config"]["Labels"]["org.opencontainers.image.base.digest"] == registry_digest(base, "2")
        assert found["Config"]["Labels"]["base"] == "2"
        assert shop.plan().actions == {"etl": "reuse"}

    def test_one_that_nobody_knew_is_pulled_and_then_known(self, shop: Shop) -> None:
        """Docker Hub does not have it, and a mirror of the engine has: it is known when it has been pulled."""
        mirrors = shop.own.client.info()["RegistryConfig"]["Mirrors"]
        if f"http://{shop.registry}/" not in mirrors:
            pytest.skip("the registry is no mirror of the engine")
        base = f"orchestrator/{shop.project}-base"
        for tag in ("1", "2"):
            push_base(shop.own, f"{shop.registry}/{base}", tag)
        shop.own.remove()
        shop.add("etl", base=f"{base}:1")
        planned = shop.plan().images["etl"]
        applied = shop.applied().images["etl"]

        assert (planned["action"], planned["findings"]) == ("build", [])
        assert shop.own.client.images.get(f"{base}:1").labels["base"] == "1"
        assert applied["tag"] != planned["tag"], "the digest of the base image is a part of it"
        assert shop.pinned("etl").endswith(applied["digest"])
        again = shop.plan("--detailed-exitcode")
        assert (again.code, again.actions) == (0, {"etl": "reuse"})

        shop.own.remove()
        retag(f"{shop.registry}/{base}", "2", "1")
        shop.change("etl")
        shop.applied()
        assert shop.own.client.images.get(f"{base}:1").labels["base"] == "1", "a mirror's tag does not decide"


def push_base(own: OwnImages, repository: str, tag: str) -> None:
    """A base image of a few bytes, in the engine and in its registry."""
    text = own.dockerfile("COPY copied /base", f"LABEL base={tag}", base="scratch")
    own.client.images.build(fileobj=build_context(text, copied=tag), custom_context=True, tag=f"{repository}:{tag}")
    own.client.images.push(repository, tag=tag)


def retag(repository: str, tag: str, new_tag: str) -> None:
    """Give an image of a registry another tag there."""
    host, _, path = repository.partition("/")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = httpx.get(f"http://{host}/v2/{path}/manifests/{tag}", headers={"Accept": kind}).raise_for_status()
    url = f"http://{host}/v2/{path}/manifests/{new_tag}"
    httpx.put(url, content=manifest.content, headers={"Content-Type": kind}).raise_for_status()


# --- users of registries ---------------------------------------------------------------------------------


@pytest.fixture
def closed_shop(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop whose registry lets in ada only. Docker's configuration names nobody."""
    (tmp_path / "htpasswd").write_text(f"ada:{PASSWORD_BCRYPT}\n")
    (tmp_path / "docker").mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    auth = {"htpasswd": {"realm": "shop", "path": str(tmp_path / "htpasswd")}}
    with registry_process(tmp_path, auth) as host:
        shop.registry = host
        shop.configure()
        yield shop


def log_in(shop: Shop, folder: Path, password: str) -> None:
    """What `docker login` writes."""
    secret = base64.b64encode(f"ada:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {shop.registry: {"auth": secret}}}))


def save_block(name: str, password: str) -> str:
    """A block with a user of a registry; returns its placeholder."""
    block = DockerRegistryCredentials(username="ada", password=SecretStr(password), registry_url="http://unused")
    block.save(name)
    return f"{{{{ prefect.blocks.docker-registry-credentials.{name} }}}}"


class TestUsers:
    def test_nobody_is_let_in(self, closed_shop: Shop) -> None:
        said = closed_shop.apply()

        assert (said.code, said.became) == (4, {})
        assert "docker login" in said.reason("etl") and closed_shop.registry in said.reason("etl")

    def test_a_wrong_password(self, closed_shop: Shop, tmp_path: Path) -> None:
        log_in(closed_shop, tmp_path / "docker", "wrong-password-77")
        said = closed_shop.apply()

        assert said.code == 4
        assert closed_shop.deployed() == set()
        assert "docker login" in said.reason("etl")
        assert "wrong-password-77" not in said.all

    def test_of_dockers_own_configuration(self, closed_shop: Shop, tmp_path: Path) -> None:
        log_in(closed_shop, tmp_path / "docker", PASSWORD)

        assert closed_shop.applied().became == {"etl": "pushed"}
        assert closed_shop.plan().actions == {"etl": "reuse"}

    def test_of_a_block(
        self,
        closed_shop: Shop,
        prefect_server: PrefectServer,
        events_sent: None,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        caplog.set_level("DEBUG", logger="orchestrator")
        placeholder = save_block(unique("team"), PASSWORD)
        closed_shop.configure(docker_registry_credentials=placeholder)
        planned, applied = closed_shop.plan(), closed_shop.applied()
        text = closed_shop.run("apply", "--yes")
        closed_shop.change("etl")
        later = [closed_shop.run(command) for command in ("plan", "push", "pull", "history")]
        monkeypatch.chdir(closed_shop.root)
        closed_shop.change("etl", "3\n")
        run = asyncio.run(deployed_by_run(closed_shop))

        assert applied.became == {"etl": "pushed"}
        assert closed_shop.pinned("etl").startswith(closed_shop.repository("etl"))
        assert [said.code for said in later] == [0, 0, 0, 0]
        for said in (planned, applied, text, *later):
            assert not holds_password(said.all.encode())
        assert (run.type.value, run.name) == ("COMPLETED", "Completed")
        assert not holds_password(caplog.text.encode())
        files = written_files(closed_shop, prefect_server)
        assert any(closed_shop.project.encode() in content for content in files.values()), "it is the right database"
        assert [name for name, content in files.items() if holds_password(content)] == []

    def test_of_a_block_for_images_of_a_prefect_yaml(self, closed_shop: Shop) -> None:
        inputs = {"image_name": f"{closed_shop.prefix}/declared", "dockerfile": "flows/etl.Dockerfile", "push": True}
        pool = {"name": POOL, "job_variables": {"image": "{{ image }}"}}
        step = {"prefect_docker.deployments.steps.build_docker_image": inputs}
        closed_shop.declare("etl", work_pool=pool, build=[step])
        closed_shop.configure(docker_registry_credentials=save_block(unique("team"), PASSWORD))

        (image,) = closed_shop.applied().document["images"]
        assert image["status"] == "pushed"
        assert closed_shop.pinned("etl") == f"{closed_shop.prefix}/declared@{image['digest']}"

    def test_of_a_block_that_is_not_there(self, closed_shop: Shop) -> None:
        closed_shop.configure(docker_registry_credentials="{{ prefect.blocks.docker-registry-credentials.nobody }}")
        said = closed_shop.plan()

        assert said.code == 2
        assert "docker-registry-credentials.nobody" in said.all


async def deployed_by_run(shop: Shop) -> State[Any]:
    """A run of the deployer, and what became of it. Its log and its tasks have come to the server."""
    state: State[Any] = await deploy_everything(mode="apply", environment=shop.environment, return_state=True)
    run_id = str(state.state_details.flow_run_id)
    await image_runs(shop, run_id, 1)
    lines: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        while not any("Finished in state" in line["message"] for line in lines):
            await asyncio.sleep(0.1)  # they are sent in batches
            lines = shop.api.post("/logs/filter", logs={"flow_run_id": {"any_": [run_id]}})
    return state


def holds_password(content: bytes) -> bool:
    login = f"ada:{PASSWORD}".encode()
    return PASSWORD.encode() in content or any(base64.b64encode(each) in content for each in (login, PASSWORD.encode()))


def written_files(shop: Shop, server: PrefectServer) -> dict[str, bytes]:
    """All that was written: the server's database and log, and what lies in the repository."""
    folders = (Path(server.environment["PREFECT_HOME"]), shop.root)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}
