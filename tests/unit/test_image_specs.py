"""Which image a flow runs from, what that is built from, and where the flow lies in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import EnvironmentConfig
from orchestrator.dockerfile import read_dockerfile
from orchestrator.images.specs import (
    FlowImage,
    PlaceInImage,
    flow_images,
    is_known_to_lack,
    place_in_image,
    possible_contexts,
    repository_name,
)
from orchestrator.model import ImageSpec
from orchestrator.repository import Repository
from tests.unit.builders import environment, image_spec, write_files

SHARED = "docker/flow.Dockerfile"
FLOW = "flows/etl.py"


def spec_of(
    root: Path, text: str, where: EnvironmentConfig | None = None, *, at: str = SHARED, files: tuple[str, ...] = (FLOW,)
) -> ImageSpec:
    """The image of a Dockerfile in a repository with these files."""
    repository = Repository(write_files(root, {at: text, **dict.fromkeys(files, "")}))
    return flow_images(repository, where or environment(), "shop", [at])[at].spec


def built(text: str, **fields: Any) -> FlowImage:
    """An image of a Dockerfile that nobody has to read from a disk."""
    return FlowImage(image_spec(**fields), read_dockerfile(text))


class TestName:
    @pytest.mark.parametrize(
        ("dockerfile", "name"),
        [
            ("docker/flow.Dockerfile", "shop-flow"),
            ("docker/Dockerfile", "shop-docker"),
            ("docker/eu/etl.Dockerfile", "shop-docker-eu-etl"),
            ("flows/etl.Dockerfile", "shop-flows-etl"),
            ("flows/x/Dockerfile", "shop-flows-x"),
            ("etl.Dockerfile", "shop-etl"),
            ("Dockerfile", "shop"),
            ("flows/Big_Load/Dockerfile", "shop-flows-big-load"),
        ],
    )
    def test_is_made_of_project_and_dockerfile(self, dockerfile: str, name: str) -> None:
        assert repository_name("shop", dockerfile) == name

    @pytest.mark.parametrize(
        ("project", "name"), [("My Shop", "my-shop-flow"), ("größe", "gr-e-flow"), ("_x_", "x-flow"), ("", "flow")]
    )
    def test_holds_only_what_docker_takes(self, project: str, name: str) -> None:
        assert repository_name(project, SHARED) == name

    def test_is_never_empty(self) -> None:
        assert repository_name("日本", "Dockerfile") == "flows"

    @pytest.mark.parametrize(
        ("registry", "repository", "is_pushed"),
        [
            (None, "shop-flow", False),
            ("registry.example.com/team", "registry.example.com/team/shop-flow", True),
            ("localhost:5000/", "localhost:5000/shop-flow", True),
        ],
    )
    def test_starts_with_the_registry(self, tmp_path: Path, registry: str, repository: str, is_pushed: bool) -> None:
        found = spec_of(tmp_path, "FROM python", environment(docker_registry=registry))
        assert (found.repository, found.is_pushed) == (repository, is_pushed)

    def test_is_the_same_in_all_environments(self, tmp_path: Path) -> None:
        one, other = (asdict(spec_of(tmp_path, "FROM python", environment(name=name))) for name in ("a", "b"))
        assert one == other


class TestWhatTheEnvironmentSays:
    WRITTEN: dict[str, Any] = {  # noqa: RUF012
        "context": "./flows/",
        "target": "run",
        "platform": "linux/arm64",
        "arguments": {"B": "2", "A": 1},
        "whole_context": True,
        "repository": "etl",
    }

    def test_of_this_dockerfile(self, tmp_path: Path) -> None:
        where = environment(
            docker_registry="r.example",
            docker_registry_credentials="{{ prefect.blocks.docker-registry-credentials.team }}",
            images={"platform": "linux/amd64", "builds": {SHARED: self.WRITTEN}},
        )
        found = spec_of(tmp_path, "FROM python", where)
        assert (found.is_pushed, found.credentials) == (True, where.docker_registry_credentials)
        assert found == ImageSpec(
            repository="r.example/etl",
            dockerfile=SHARED,
            context="flows",
            target="run",
            platform="linux/arm64",
            arguments=(("A", "1"), ("B", "2")),
            takes_whole_context=True,
        )

    def test_of_another_one_is_of_no_account(self, tmp_path: Path) -> None:
        where = environment(images={"platform": "linux/amd64", "builds": {"Dockerfile": self.WRITTEN}})
        assert spec_of(tmp_path, "FROM python", where) == ImageSpec(
            repository="shop-flow", dockerfile=SHARED, platform="linux/amd64"
        )

    def test_nothing(self, tmp_path: Path) -> None:
        found = spec_of(tmp_path, "FROM python")
        assert found == ImageSpec(repository="shop-flow", dockerfile=SHARED)
        assert (found.source, found.is_pushed, found.credentials) == (f"{SHARED}:1", False, "")

    def test_arguments_have_a_say_in_what_is_copied(self, tmp_path: Path) -> None:
        text, files = "ARG CODE=src\nFROM python\nARG CODE\nCOPY $CODE /app", ("docker/code/a.py",)
        where = environment(images={"builds": {SHARED: {"arguments": {"CODE": "code"}}}})
        assert spec_of(tmp_path, text, where, files=files).context == "docker"
        assert spec_of(tmp_path, text, files=files).context == ""


class TestContext:
    @pytest.mark.parametrize(
        ("dockerfile", "folders"),
        [
            ("Dockerfile", ("",)),
            ("docker/flow.Dockerfile", ("", "docker")),
            ("a/b/c/Dockerfile", ("", "a", "a/b", "a/b/c")),
        ],
    )
    def test_may_be_any_folder_down_to_the_dockerfiles_own(self, dockerfile: str, folders: tuple[str, ...]) -> None:
        assert possible_contexts(dockerfile) == folders

    @pytest.mark.parametrize(
        ("copies", "files", "context"),
        [
            ("", (), ""),
            ("COPY . .", ("a/b/etl.py",), ""),
            ("COPY a/b/etl.py .", ("a/b/etl.py",), ""),
            ("COPY b/etl.py .", ("a/b/etl.py",), "a"),
            ("COPY etl.py .", ("a/b/etl.py",), "a/b"),
            ("COPY etl.py .", ("etl.py", "a/b/etl.py"), ""),
            ("COPY etl.py .\nCOPY requirements.txt .", ("etl.py", "a/b/etl.py", "a/b/requirements.txt"), "a/b"),
            ("COPY b .", ("a/b/etl.py",), "a"),
            ("COPY nowhere.py etl.py .", ("a/b/etl.py",), ""),
            ("COPY ./etl.py /x/", ("a/b/etl.py",), "a/b"),
            ("COPY ../etl.py .", ("a/b/etl.py",), "a/b"),
            ("COPY --from=build etl.py .", ("a/b/etl.py",), ""),
            ("COPY *.py .", ("a/b/etl.py",), ""),
            ("ADD https://example.com/x.tar .\nCOPY etl.py .", ("a/b/etl.py",), "a/b"),
            ("COPY $UNKNOWN etl.py ./", ("a/b/etl.py",), "a/b"),
            ("COPY <<X x\nX", ("a/b/etl.py",), ""),
        ],
    )
    def test_is_the_first_that_has_all_that_is_copied(
        self, tmp_path: Path, copies: str, files: tuple[str, ...], context: str
    ) -> None:
        found = spec_of(tmp_path, f"FROM python\n{copies}", at="a/b/Dockerfile", files=files)
        assert found.context == context

    def test_the_root_may_be_written(self, tmp_path: Path) -> None:
        where = environment(images={"builds": {"a/Dockerfile": {"context": "."}}})
        assert spec_of(tmp_path, "FROM python\nCOPY x .", where, at="a/Dockerfile", files=("a/x",)).context == ""


class TestFlowImages:
    def test_are_by_dockerfile_each_once(self, tmp_path: Path) -> None:
        repository = Repository(write_files(tmp_path, {"Dockerfile": "FROM a", "x/Dockerfile": "FROM b"}))
        found = flow_images(repository, environment(), "shop", ["x/Dockerfile", "Dockerfile", "x/Dockerfile"])
        assert {path: image.dockerfile.stages[0].base_written for path, image in found.items()} == {
            "x/Dockerfile": "b",
            "Dockerfile": "a",
        }

    def test_what_cannot_be_read_is_left_out(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_bytes(b"\xff\xfe")
        assert flow_images(Repository(tmp_path), environment(), "shop", ["Dockerfile", "nowhere"]) == {}


class TestPlace:
    """Where the flow of flows/etl.py lies."""

    def place(self, *lines: str, **fields: Any) -> tuple[str, str]:
        found = place_in_image(built("\n".join(("FROM python", *lines)), **fields), f"{FLOW}:etl")
        return found.folder, found.entrypoint

    @pytest.mark.parametrize(
        "copy",
        [
            *("COPY . .", "COPY . ./", "COPY . /app", "COPY . /app/", "ADD . .", "COPY ./ /app/", "COPY / ."),
            *("COPY flows flows", "COPY flows/ ./flows/", "COPY flows /app/flows", 'COPY ["flows", "flows"]'),
            *("COPY flows/etl.py flows/", "COPY flows/etl.py flows/etl.py", "COPY flows/etl.py ./flows/etl.py"),
            *("COPY flows/etl.py flows/other.py flows/", "COPY --chown=1000 flows flows"),
            *("COPY flows/*.py flows/", "COPY $FILES .", "RUN git clone https://example.com/shop .", "COPY flows $TO"),
        ],
    )
    def test_as_in_the_repository_below_the_working_directory(self, copy: str) -> None:
        assert self.place("WORKDIR /app", copy) == ("/app", f"{FLOW}:etl")

    @pytest.mark.parametrize(
        ("lines", "folder"),
        [
            (("WORKDIR /app", "COPY . /code"), "/code"),
            (("WORKDIR /app", "COPY . code"), "/app/code"),
            (("WORKDIR /app", "COPY . ../code/"), "/code"),
            (("WORKDIR /app", "COPY flows /code/flows"), "/code"),
            (("WORKDIR /app", "COPY . .", "WORKDIR /elsewhere"), "/app"),
            (("WORKDIR /app", "COPY . /"), "/"),
            (("COPY . /",), "/"),
            (("COPY . /opt/shop/",), "/opt/shop"),
            (("WORKDIR /app", "COPY . /code", "COPY . /later"), "/later"),
            (("WORKDIR /app", "COPY . /code", "COPY requirements.txt /later/"), "/code"),
            (("WORKDIR /app", "COPY . /code", "COPY --from=x flows /later/flows"), "/code"),
        ],
    )
    def test_as_in_the_repository_below_another_folder(self, lines: tuple[str, ...], folder: str) -> None:
        assert self.place(*lines) == (folder, f"{FLOW}:etl")

    @pytest.mark.parametrize(
        ("copy", "path"),
        [
            ("COPY flows .", "/app/etl.py"),
            ("COPY flows/ /code/", "/code/etl.py"),
            ("COPY flows/etl.py .", "/app/etl.py"),
            ("COPY flows/etl.py ./", "/app/etl.py"),
            ("COPY flows/etl.py /app", "/app/etl.py"),
            ("COPY flows/etl.py /opt/shop", "/opt/shop/etl.py"),
            ("COPY flows/etl.py ./main.py", "/app/main.py"),
            ("COPY flows/etl.py requirements.txt /code", "/code/etl.py"),
            ("COPY . .\nCOPY flows/etl.py /code/main.py", "/code/main.py"),
        ],
    )
    def test_under_another_path(self, copy: str, path: str) -> None:
        assert self.place("WORKDIR /app", copy) == ("/app", f"{path}:etl")

    @pytest.mark.parametrize("copy", ["COPY . .", "COPY flows flows", "COPY ./flows/etl.py ./flows/"])
    def test_the_base_image_sets_the_working_directory(self, copy: str) -> None:
        assert self.place(copy) == ("", f"{FLOW}:etl")

    @pytest.mark.parametrize(
        ("lines", "folder"),
        [
            (("WORKDIR /a", "WORKDIR b", "WORKDIR ../c"), "/a/c"),
            (("WORKDIR '/with blank'",), "/with blank"),
            (("WORKDIR /a//b/./",), "/a/b"),
            (("WORKDIR a",), ""),
            (("WORKDIR /a", "WORKDIR $B"), ""),
            (("WORKDIR /a", "WORKDIR $B", "WORKDIR c"), ""),
            (("WORKDIR /a", "WORKDIR $B", "WORKDIR /c"), "/c"),
            (("WORKDIR /a/$B",), ""),
            (("workdir /a",), "/a"),
        ],
    )
    def test_working_directories_add_up(self, lines: tuple[str, ...], folder: str) -> None:
        assert self.place(*lines, "COPY . .") == (folder, f"{FLOW}:etl")

    def test_a_copy_goes_to_the_working_directory_of_its_line(self) -> None:
        assert self.place("WORKDIR /a", "COPY . .", "WORKDIR /b", "COPY x.txt .") == ("/a", f"{FLOW}:etl")

    @pytest.mark.parametrize(
        ("copy", "place"),
        [
            ("COPY . .", ("/app", "/app/etl.py:etl")),
            ("COPY . flows", ("/app", f"{FLOW}:etl")),
            ("COPY etl.py /code/flows/", ("/code", f"{FLOW}:etl")),
        ],
    )
    def test_from_a_context_below_the_root(self, copy: str, place: tuple[str, str]) -> None:
        assert self.place("WORKDIR /app", copy, context="flows") == place

    def test_a_flow_outside_of_the_context_is_not_copied(self) -> None:
        assert self.place("WORKDIR /app", "COPY . /code", context="docker") == ("/app", f"{FLOW}:etl")

    def test_a_copy_that_keeps_parents(self) -> None:
        assert self.place("WORKDIR /app", "COPY --parents flows/etl.py ./") == ("/app", f"{FLOW}:etl")

    def test_a_method_of_a_class(self) -> None:
        image = built("FROM python\nWORKDIR /app\nCOPY flows .")
        assert place_in_image(image, f"{FLOW}:Shop.etl") == PlaceInImage("/app", "/app/etl.py:Shop.etl")

    def test_a_module_path_is_looked_up_by_python(self) -> None:
        assert place_in_image(built("FROM python\nWORKDIR /app"), "flows.etl.etl") == PlaceInImage(
            "/app", "flows.etl.etl"
        )


STAGES = """
FROM python AS base
WORKDIR /base
COPY . .
FROM base AS Run
WORKDIR sub
FROM python AS other
WORKDIR /other
COPY flows /other/code
FROM python
WORKDIR /last
COPY --from=run /base /last
"""


class TestStages:
    @pytest.mark.parametrize(
        ("target", "folder", "entrypoint"),
        [
            ("", "/last", f"{FLOW}:etl"),
            ("base", "/base", f"{FLOW}:etl"),
            ("run", "/base", f"{FLOW}:etl"),
            ("RUN", "/base", f"{FLOW}:etl"),
            ("other", "/other", "/other/code/etl.py:etl"),
            ("0", "/base", f"{FLOW}:etl"),
            ("2", "/other", "/other/code/etl.py:etl"),
            ("3", "/last", f"{FLOW}:etl"),
            ("4", "", f"{FLOW}:etl"),
            ("nowhere", "", f"{FLOW}:etl"),
            ("²", "", f"{FLOW}:etl"),
        ],
    )
    def test_the_one_that_is_built_counts(self, target: str, folder: str, entrypoint: str) -> None:
        found = place_in_image(built(STAGES, target=target), f"{FLOW}:etl")
        assert (found.folder, found.entrypoint) == (folder, entrypoint)

    def test_a_stage_goes_on_where_its_parent_ended(self) -> None:
        text = "FROM python AS base\nWORKDIR /base\nFROM base\nCOPY flows code"
        found = place_in_image(built(text), f"{FLOW}:etl")
        assert (found.folder, found.entrypoint) == ("/base", "/base/code/etl.py:etl")

    def test_a_stage_knows_nothing_of_one_that_it_does_not_start_from(self) -> None:
        text = "FROM python AS a\nWORKDIR /a\nFROM python AS b\nCOPY . .\nFROM python\nWORKDIR /c"
        assert place_in_image(built(text, target="b"), f"{FLOW}:etl") == PlaceInImage("", f"{FLOW}:etl")

    def test_a_file_without_stages(self) -> None:
        assert place_in_image(built("# nothing"), f"{FLOW}:etl") == PlaceInImage("", f"{FLOW}:etl")


class TestIsKnownToLack:
    def lacks(self, *lines: str, path: str = FLOW, **fields: Any) -> bool:
        return is_known_to_lack(built("\n".join(("FROM python", *lines)), **fields), path)

    @pytest.mark.parametrize(
        "copy",
        [
            "COPY requirements.txt .",
            "COPY --chown=1000 requirements.txt .",
            "COPY flow flows",
            "COPY flows/etl /app",
            "COPY flows/other.py shared /app/",
            "ADD requirements.txt .",
            "COPY flows_of_others /app/flows",
        ],
    )
    def test_what_is_copied_is_something_else(self, copy: str) -> None:
        assert self.lacks(copy)

    @pytest.mark.parametrize(
        "copy",
        [
            *("COPY . .", "COPY flows .", "COPY ./flows/ .", "COPY flows/etl.py .", "COPY ../flows ."),
            *("COPY requirements.txt .\nCOPY flows .", "ADD . /app"),
        ],
    )
    def test_it_is_copied(self, copy: str) -> None:
        assert not self.lacks(copy)

    @pytest.mark.parametrize(
        "more",
        [
            *("COPY --from=build /app /app", "COPY --from=ghcr.io/x/y /app /app", "COPY fl*ws .", "COPY $CODE ."),
            *("ADD https://example.com/code .", "ADD git@github.com:x/y.git .", "COPY flows/[a-e]tl.py ."),
            *("ARG URL=https://example.com/x\nADD $URL .",),
            *("ADD code.tar .", "ADD code.tar.gz /app/", "ADD dist/code.tgz /app/", "ADD Code.TAR.XZ ."),
            *("RUN --mount=type=bind,target=/code cp -r /code/flows .", "RUN --mount=target=/code,source=flows cp x y"),
        ],
    )
    def test_nobody_knows(self, more: str) -> None:
        assert not self.lacks("COPY requirements.txt .", more)

    @pytest.mark.parametrize("line", ["RUN --mount=type=cache,target=/root/.cache pip install x", "RUN pip install x"])
    def test_commands_that_see_nothing_of_the_repository_do_not_matter(self, line: str) -> None:
        assert self.lacks("COPY requirements.txt .", line)

    def test_an_archive_that_is_copied_stays_one(self) -> None:
        assert self.lacks("COPY code.tar .")

    def test_an_image_that_copies_nothing_has_its_code_from_elsewhere(self) -> None:
        assert not self.lacks("RUN git clone https://example.com/shop /app")

    def test_only_the_stages_that_it_is_made_of_count(self) -> None:
        stages = ("AS all", "COPY . .", "FROM python AS few", "COPY x .", "FROM all AS derived", "COPY y .")
        text = "\n".join(("FROM python", *stages)).replace("python\nAS", "python AS")
        assert not is_known_to_lack(built(text, target="all"), FLOW)
        assert is_known_to_lack(built(text, target="few"), FLOW)
        assert not is_known_to_lack(built(text, target="derived"), FLOW)
        assert not is_known_to_lack(built(text, target="nowhere"), FLOW)

    def test_whatever_others_take(self) -> None:
        text = "FROM python AS other\nCOPY fl*ws .\nFROM python\nCOPY x ."
        assert is_known_to_lack(built(text), FLOW)

    def test_a_context_that_has_not_the_file(self) -> None:
        assert self.lacks("COPY . .", context="docker")
        assert not self.lacks("COPY . .", context="flows")
        assert self.lacks("COPY etl.py .", context="flows", path="flows/other.py")

    def test_an_argument_that_is_filled_later(self) -> None:
        image = FlowImage(image_spec(), read_dockerfile("FROM python\nARG CODE\nCOPY $CODE .", {"CODE": "{{ $CODE }}"}))
        assert not is_known_to_lack(image, FLOW)
