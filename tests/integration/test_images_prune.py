"""`images prune`: removes what nobody can need any more from the engine, and nothing else, ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.images.making import PROJECT_LABEL

from .api import unique
from .engine import build_context
from .shops import Said, Shop

pytestmark = pytest.mark.docker

NOBODY_LISTENS = "http://127.0.0.1:9/api"


class Versions:
    """The images of one flow, version by version; each is known by its text."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.names: dict[str, str] = {}

    def make(self, text: str, act: Callable[[], Said] | None = None) -> str:
        """Build a version, or deploy it; gives its name."""
        self.shop.change("etl", text)
        said = act() if act else self.shop.json("build")
        self.names[text] = "{name}:{tag}".format(**said.images["etl"])
        return self.names[text]

    @property
    def there(self) -> set[str]:
        """Those that the engine has under their own names."""
        tags = {tag for image in self.shop.own.client.api.images() for tag in image["RepoTags"] or ()}
        return {text for text, name in self.names.items() if name in tags}

    def prune(self, *more: str, keep: int = 1, yes: bool = True) -> tuple[int, dict[str, list[str]], str]:
        arguments = ["images", "prune", "--keep", str(keep), "--output", "json", *more, *(["--yes"] if yes else [])]
        said = self.shop.run_plainly(*arguments)
        return said.code, said.document, said.all


class TestWhatStays:
    def test_what_deployments_and_revisions_of_any_environment_use(self, shop: Shop) -> None:
        versions, other = Versions(shop), f"{shop.environment}-2"
        shop.configure(other)
        versions.make("of an old revision", shop.applied)
        versions.make("of another environment", lambda: shop.applied(environment=other))
        versions.make("deployed", shop.applied)
        for text in ("old", "newest"):
            versions.make(text)
        code, document, _ = versions.prune(keep=1)

        assert (code, document["in_use"]) == (0, [])
        assert document["removed"] == [versions.names["old"]]
        assert versions.there == {"of an old revision", "of another environment", "deployed", "newest"}
        assert versions.prune(keep=1)[1] == {"removed": [], "in_use": []}

    def test_the_newest(self, local_shop: Shop) -> None:
        versions = Versions(local_shop)
        for text in ("1", "2", "3"):
            versions.make(text)
        versions.make("deployed", local_shop.applied)

        assert versions.prune(keep=3)[1]["removed"] == [versions.names["1"]]
        assert versions.prune(keep=0)[0] == 0
        assert versions.there == {"deployed"}

    def test_what_people_have_to_do_with(self, local_shop: Shop) -> None:
        """What a container uses, what somebody has named, and what is built on top of one of ours."""
        versions, client = Versions(local_shop), local_shop.own.client
        used, base = versions.make("in a container"), versions.make("built upon")
        client.images.get(versions.make("named")).tag(f"{local_shop.project}-mine", "1")
        dockerfile = local_shop.own.dockerfile("ENV MORE=1", base=base)
        on_top = f"{local_shop.project}-on-top:1"
        client.images.build(fileobj=build_context(dockerfile), custom_context=True, tag=on_top)
        client.images.build(
            fileobj=build_context(local_shop.own.dockerfile(f"LABEL {PROJECT_LABEL}=another", base="scratch")),
            custom_context=True,
            tag=f"{local_shop.repository('etl')}:another",
        )
        container = client.api.create_container(used, "true")
        try:
            code, document, _ = versions.prune(keep=0)
        finally:
            client.api.remove_container(container["Id"])

        assert (code, document["removed"], set(document["in_use"])) == (0, [], {used, base})
        assert versions.there == {"in a container", "named", "built upon"}
        for name in (on_top, f"{local_shop.project}-mine:1", f"{local_shop.repository('etl')}:another"):
            assert client.images.get(name).id, "it is there"

    def test_what_a_deployment_of_somebody_else_uses_where_there_are_no_environments(self, local_shop: Shop) -> None:
        versions = Versions(local_shop)
        used, unused = versions.make("used"), versions.make("unused")
        for file in (local_shop.root / "environments").iterdir():
            file.unlink()
        flow = unique("somebody")
        local_shop.api.deploy(f"{flow}/else", job_variables={"image": used})
        try:
            assert versions.prune(keep=0)[1]["removed"] == [unused]
        finally:
            local_shop.api.delete_deployments_of(flow)
        assert versions.there == {"used"}


class TestRefusals:
    def test_a_server_that_does_not_answer(self, local_shop: Shop) -> None:
        versions = Versions(local_shop)
        versions.make("1")
        local_shop.configure("elsewhere", prefect_api_url=NOBODY_LISTENS)
        for more in ((), ("--api-url", local_shop.api.url)):
            code, _, said = versions.prune(*more, keep=0)
            assert code == 5
            assert "'elsewhere'" in said and NOBODY_LISTENS in said
        assert versions.there == {"1"}

    def test_nobody_has_said_yes(self, local_shop: Shop) -> None:
        versions = Versions(local_shop)
        name = versions.make("1")
        code, _, said = versions.prune(keep=0, yes=False)

        assert code == 5
        assert "--yes" in said and name in said
        assert versions.there == {"1"}

    def test_without_an_engine(self, local_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        assert Versions(local_shop).prune()[0] == 1


def test_as_text(local_shop: Shop) -> None:
    versions = Versions(local_shop)
    names = [versions.make("1"), versions.make("2")]
    said = local_shop.run_plainly("images", "prune", "--keep", "1", "--yes")
    again = local_shop.run_plainly("images", "prune", "--keep", "1", "--yes")

    assert (said.code, again.code) == (0, 0)
    assert f"- {names[0]}" in said.out and "1 removed" in said.out and names[1] not in said.out
    assert "nothing to remove" in again.out
