"""Images and the rest of the world: a commit that is not what was built, holds, secrets of steps, and what is away."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from orchestrator.errors import ImageError
from orchestrator.images.context import read_inputs
from orchestrator.images.sent_context import SentContext
from orchestrator.model import ImageSpec
from tests.unit.builders import write_files

from .api import unique
from .engine import BASE_IMAGE
from .shops import POOL, PYTHON_POOL, Shop

pytestmark = pytest.mark.docker

BUILD_STEP = "prefect_docker.deployments.steps.build_docker_image"
SHELL = "prefect.deployments.steps.run_shell_script"
NOWHERE = "unix:///nowhere/docker.sock"


def test_what_an_image_copies_counts_as_deployed_from_files_that_differ(local_shop: Shop) -> None:
    local_shop.commit()
    local_shop.change("etl")
    local_shop.applied()
    (revision,) = local_shop.json("history").document["revisions"]

    assert revision["is_dirty"] is True


def test_a_changed_file_of_an_image_ends_a_hold(local_shop: Shop) -> None:
    local_shop.applied()
    local_shop.change("etl", "broken\n")
    local_shop.applied()
    assert local_shop.json("rollback", "--yes").code == 0
    assert local_shop.json("status").document["hold"]
    local_shop.change("etl", "mended\n")

    assert not local_shop.json("status").document["hold"]


def test_an_engine_that_is_away_changes_nothing(local_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    local_shop.applied()
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    said = local_shop.plan("--detailed-exitcode")

    assert (said.code, said.actions) == (0, {"etl": "unknown"}), said.all
    local_shop.configure(deployments={"*": {"description": "Another one."}})
    applied = local_shop.applied()
    assert applied.became == {"etl": "reused"}


def test_what_people_named_or_built_on_top_is_not_pruned(local_shop: Shop) -> None:
    local_shop.applied()
    client, repository = local_shop.own.client, local_shop.repository("etl")
    tag = local_shop.plan().images["etl"]["tag"]
    client.images.get(f"{repository}:{tag}").tag(repository, tag="keep-me")
    dockerfile = io.BytesIO(f"FROM {repository}:{tag}\nENV MORE=1\n".encode())
    client.images.build(fileobj=dockerfile, tag=f"{repository}:debug", rm=True)
    assert local_shop.json("clean", "*", "--yes").code == 0
    for revision in local_shop.api.post(
        "/block_documents/filter", block_types={"slug": {"any_": ["orchestrator-revision"]}}
    ):
        if revision["data"].get("project") == local_shop.project:
            local_shop.api.call("DELETE", f"/block_documents/{revision['id']}")

    said = local_shop.run_plainly("images", "prune", "--keep", "0", "--yes", "--output", "json")
    assert said.document["removed"] == []
    assert {f"{repository}:{name}" for name in (tag, "keep-me", "debug")} <= {
        name for image in client.images.list() for name in image.tags
    }


def test_secrets_of_steps_are_shown_nowhere(local_shop: Shop) -> None:
    block, secret = unique("token"), f"s3cr3t-{unique()}"
    with temporary_settings({PREFECT_API_URL: local_shop.api.url}):
        Secret(value=SecretStr(secret)).save(block)  # type: ignore[unused-coroutine]
    local_shop.api.ensure_pool(PYTHON_POOL)
    script = f"sh -c 'echo says {{{{ prefect.blocks.secret.{block} }}}}; exit $CODE'"
    shell = {SHELL: {"id": "get", "script": script, "env": {"CODE": "3"}, "expand_env_vars": False}}
    where = {"name": PYTHON_POOL, "job_variables": {"env": {"X": "{{ get.stdout }}"}}}
    entry = {"name": local_shop.environment, "entrypoint": "flows/etl.py:etl", "work_pool": where}

    def written(code: str, **more: str) -> None:
        shell[SHELL]["env"] = {"CODE": code}
        document = {"build": [shell], "deployments": [{**entry, **more}]}
        local_shop.write({"prefect.yaml": yaml.safe_dump(document)})

    written("3")
    failed = local_shop.apply()
    assert (failed.code, secret in failed.all) == (4, False), failed.all
    written("0")
    applied = local_shop.applied()
    assert secret not in applied.all
    assert secret in local_shop.deployment("etl")["job_variables"]["env"]["X"]
    written("0", description="Another one.")
    assert secret not in local_shop.plan().all


@pytest.mark.parametrize("goes_well", [True, False])
def test_a_secret_part_of_a_name_is_shown_nowhere(
    shop: Shop, caplog: pytest.LogCaptureFixture, goes_well: bool
) -> None:
    """Prefect's documentation has the registry in a Secret block as its example."""
    block, secret = unique("registry"), f"hidden-{unique()}"
    with temporary_settings({PREFECT_API_URL: shop.api.url}):
        Secret(value=SecretStr(f"{shop.prefix}/{secret}")).save(block)  # type: ignore[unused-coroutine]
    shop.add("etl", "RUN echo it is $NAME" if goes_well else "RUN exit 3", base=BASE_IMAGE)
    name = f"{{{{ prefect.blocks.secret.{block} }}}}/{shop.project}"
    arguments = {"image_name": name, "dockerfile": "flows/etl.Dockerfile", "push": True}
    where = {"name": POOL, "job_variables": {"image": "{{ image.image }}"}}
    entry = {"name": shop.environment, "entrypoint": "flows/etl.py:etl", "work_pool": where}
    build = {BUILD_STEP: {"id": "image", **arguments}}
    shop.write({"prefect.yaml": yaml.safe_dump({"build": [build], "deployments": [entry]})})
    said = [
        shop.plan(),
        shop.run("plan"),
        shop.apply() if goes_well else shop.run("apply", "--yes"),
        shop.run("push"),
        shop.run("pull"),
        shop.run("history"),
        shop.run("status"),
    ]

    assert not any(secret in each.all for each in said), [each.all for each in said if secret in each.all]
    assert secret not in caplog.text
    assert f"********/{shop.project}:" in said[1].all
    assert (said[2].code, shop.deployed()) == ((0, {"etl"}) if goes_well else (4, set()))
    if goes_well:
        assert shop.pinned("etl").startswith(f"{shop.prefix}/{secret}/{shop.project}@sha256:")
        found = shop.own.client.images.get(shop.pinned("etl"))
        assert not any(secret in label for label in found.labels.values())


def test_a_full_disk_of_ours_is_told(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "1\n"})
    inputs = read_inputs(root, ImageSpec(repository="shop", dockerfile="Dockerfile"))

    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(ImageError, match="No space left on device") as caught,
    ):
        SentContext(root, inputs).write_tar(full)
    assert "TMPDIR" in caught.value.remedy


def test_images_of_another_checkout_of_the_same_name_are_not_pruned(local_shop: Shop) -> None:
    local_shop.applied()
    digest, repository = "a" * 64, f"elsewhere/{local_shop.project}"
    labels = {"project": local_shop.project, "repository": repository, "input-digest": digest}
    dockerfile = local_shop.own.dockerfile(*(f"LABEL io.orchestrator.{name}={value}" for name, value in labels.items()))
    tag = f"{repository}:{digest[:12]}"
    local_shop.own.client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True)

    said = local_shop.run_plainly("images", "prune", "--keep", "0", "--yes", "--output", "json")
    assert (said.code, said.document["removed"]) == (0, [])


def test_a_base_image_that_nobody_knows_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add("etl", base="nowhere.invalid/base:1")
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    said = shop.plan()

    assert said.actions == {"etl": "unknown"}
    assert "its base image nowhere.invalid/base:1 could not be looked up" in said.all


def test_a_pull_from_a_registry_that_is_away_fails(local_shop: Shop) -> None:
    local_shop.configure(docker_registry="127.0.0.1:1/away")
    said = local_shop.json("pull")

    assert (said.code, said.became) == (4, {"etl": "failed"})
    assert "Nothing answers at 127.0.0.1:1" in said.all
