"""The commands `build`, `push` and `pull`: what they do, what they say as text and as JSON, and how they end."""

from __future__ import annotations

import pytest
from prefect.blocks.system import Secret
from pydantic import SecretStr

from .api import unique
from .engine import BASE_IMAGE
from .shops import Shop

pytestmark = pytest.mark.docker

NO_ENGINE = "unix:///nowhere/docker.sock"


class TestBuild:
    def test_what_is_missing_is_built_and_nothing_is_pushed(self, shop: Shop) -> None:
        first = shop.run("build")
        second = shop.json("build")
        (image,) = second.document["images"]

        assert (first.code, second.code) == (0, 0)
        assert "built" in first.out and shop.repository("etl") in first.out
        assert f"{shop.project}-flows-etl:{image['tag']} | Successfully built" in first.out, (
            "it shows what a build says"
        )
        assert second.became == {"etl": "reused"}
        found = shop.in_engine("etl", image["tag"])
        assert found is not None and image["digest"] == found["Id"]
        assert shop.digest("etl", image["tag"]) is None

    def test_only_what_is_asked_for(self, local_shop: Shop) -> None:
        local_shop.add("report")

        assert local_shop.json("build", "--dockerfile", "flows/report.Dockerfile").became == {"report": "built"}
        assert not local_shop.own.client.images.list(name=local_shop.repository("etl"))

    def test_a_dockerfile_that_no_image_has(self, local_shop: Shop) -> None:
        said = local_shop.json("build", "--dockerfile", "flows/reprot.Dockerfile")

        assert said.code == 2
        assert "flows/reprot.Dockerfile" in said.out and "flows/etl.Dockerfile" in said.out

    def test_one_that_fails(self, local_shop: Shop) -> None:
        local_shop.add("report", "RUN echo what it said; exit 3", base=BASE_IMAGE)
        text = local_shop.run("build")
        said = local_shop.json("build")

        assert (text.code, said.code) == (4, 4)
        for words in ("flows/report.Dockerfile:4", "exit code 3", "what it said"):
            assert words in text.out
        assert said.became == {"etl": "reused", "report": "failed"}
        assert "what it said" in said.images["report"]["output"]

    def test_no_registry_is_needed(self, local_shop: Shop) -> None:
        local_shop.configure(docker_registry="127.0.0.1:1/away")
        first, second = local_shop.json("build"), local_shop.json("build")

        assert (first.code, first.became, second.became) == (0, {"etl": "built"}, {"etl": "reused"}), first.all
        assert local_shop.json("push").code == 4

    def test_without_an_engine(self, local_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
        said = local_shop.json("build")

        assert (said.code, said.became) == (4, {"etl": "failed"})
        assert "DOCKER_HOST" in said.images["etl"]["remedy"]

    def test_where_no_deployment_runs_from_an_image(self, local_shop: Shop) -> None:
        local_shop.configure(templates={})

        assert local_shop.json("build").document == {"images": [], "problems": []}
        assert "no images" in local_shop.run("build").out

    def test_secret_arguments_are_not_shown(self, local_shop: Shop) -> None:
        name, secret = unique("token"), "c0rrect-horse-battery"
        Secret(value=SecretStr(secret)).save(name)
        local_shop.add("etl", "ARG TOKEN", 'RUN echo "with ${TOKEN}."', base=BASE_IMAGE)
        arguments = {"TOKEN": f"{{{{ prefect.blocks.secret.{name} }}}}"}
        local_shop.configure(images={"builds": {"flows/etl.Dockerfile": {"arguments": arguments}}})
        said = [local_shop.run("plan"), local_shop.run("build"), local_shop.applied(), local_shop.json("history")]

        assert "with ********." in said[1].out
        assert [each.code for each in said] == [0, 0, 0, 0]
        assert not [each for each in said if secret in each.all]
        Secret(value=SecretStr("another-one-altogether")).save(name, overwrite=True)
        assert local_shop.plan().actions == {"etl": "reuse"}, "its value does not count"


class TestPush:
    def test_what_is_missing_is_built_and_pushed(self, shop: Shop) -> None:
        text = shop.run("push")
        said = shop.json("push")
        (image,) = said.document["images"]

        assert (text.code, said.became) == (0, {"etl": "reused"})
        assert "pushed" in text.out
        assert image["digest"] == shop.digest("etl", image["tag"])

    def test_where_there_is_no_registry(self, local_shop: Shop) -> None:
        said = local_shop.run("push")

        assert said.code == 0
        assert "built" in said.out and "in this machine's engine only" in said.out


class TestPull:
    def test_what_the_registry_has(self, shop: Shop) -> None:
        image = shop.json("push").images["etl"]
        shop.own.remove()
        assert shop.in_engine("etl", image["tag"]) is None
        said = shop.json("pull")
        found = shop.in_engine("etl", image["tag"])

        assert (said.code, said.became) == (0, {"etl": "pulled"})
        assert found is not None
        assert found["RepoDigests"] == [f"{shop.repository('etl')}@{image['digest']}"]

    def test_what_it_has_not_yet(self, shop: Shop) -> None:
        said = shop.json("pull")

        assert (said.code, said.became) == (0, {"etl": "skipped"})

    def test_without_an_engine(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", NO_ENGINE)
        said = shop.json("pull")

        assert said.code == 1
        assert NO_ENGINE in said.out
