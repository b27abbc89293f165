"""What an image is built from: what its digest is over and what it is not, what is reached, and what is sent."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import socket
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from docker.utils.build import exclude_paths  # docker's Python SDK, an independent reading of the same rules
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigurationError, ImageError
from orchestrator.images import context_files
from orchestrator.images.context import FileDigests, read_inputs
from orchestrator.images.sent_context import DOCKERFILE_IN_CONTEXT, dockerfile_in, write_folder, write_tar
from orchestrator.model import BuildInputs, ImageSpec
from tests.unit.builders import places, write_files

ALL = "FROM python:3.11-slim\nCOPY . /app\n"
SOME = "FROM python:3.11-slim\nCOPY requirements.txt flows /app/\n"


def image(dockerfile: str = "Dockerfile", **fields: Any) -> ImageSpec:
    return ImageSpec(repository="shop/etl", dockerfile=dockerfile, **fields)


def with_dockerfile(text: str, **fields: Any) -> ImageSpec:
    """An image whose Dockerfile is no file of the repository."""
    return image(dockerfile_text=text, **fields)


def paths(inputs: BuildInputs) -> list[str]:
    return [entry.path for entry in inputs.entries]


def files(inputs: BuildInputs) -> list[str]:
    return [entry.path for entry in inputs.entries if entry.kind != "folder"]


def sent(root: Path, inputs: BuildInputs) -> bytes:
    file = io.BytesIO()
    write_tar(root, inputs, file)
    return file.getvalue()


def texts(root: Path, inputs: BuildInputs) -> dict[str, str]:
    """The files in what is sent, with what they hold."""
    with tarfile.open(fileobj=io.BytesIO(sent(root, inputs))) as tar:
        members = [member for member in tar if member.isfile()]
        return {each.name: (tar.extractfile(each) or io.BytesIO()).read().decode() for each in members}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A repository with two Dockerfiles: one takes all, one takes some."""
    root = write_files(
        tmp_path / "shop",
        {
            "Dockerfile": SOME,
            "all.Dockerfile": ALL,
            ".dockerignore": "*.log\ndata\n",
            "README.md": "A shop.",
            "requirements.txt": "pandas",
            "run.log": "started",
            "data/big.csv": "1,2",
            "flows/etl.py": "x = 1",
            "flows/lib/deep.py": "y = 1",
            "flows/run.sh": "exec true",
        },
    )
    (root / "flows/run.sh").chmod(0o755)
    (root / "flows/latest").symlink_to("etl.py")
    return root


# ---------------------------------------------------------------------------------------------------------
# The digest
# ---------------------------------------------------------------------------------------------------------

Change = Callable[[Path, ImageSpec], ImageSpec | None]


def writing(path: str, text: str) -> Change:
    return lambda root, _: write_files(root, {path: text}) and None


def asking(**fields: Any) -> Change:
    return lambda _, spec: replace(spec, **fields)


def mode(path: str, bits: int) -> Change:
    return lambda root, _: (root / path).chmod(bits)


def relinked(root: Path, _: ImageSpec) -> None:
    (root / "flows/latest").unlink()
    (root / "flows/latest").symlink_to("lib/deep.py")


def touched(root: Path, _: ImageSpec) -> None:
    for path in root.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)


def cached(root: Path, _: ImageSpec) -> None:
    write_files(root, {"flows/__pycache__/etl.pyc": "1", "flows/old/lib/__pycache__/gone.pyc": "1", ".git/HEAD": "1"})
    write_files(root, {".orchestrator/cache/scan.cache": "1", "flows/.venv/bin/python": "1", "flows/old.pyc": "1"})


CHANGING: Mapping[str, Change] = {
    "one byte of a file": writing("flows/lib/deep.py", "y = 2"),
    "a file more": writing("flows/more.py", ""),
    "a folder more": lambda root, _: (root / "flows/empty").mkdir(),
    "a file less": lambda root, _: (root / "flows/lib/deep.py").unlink(),
    "a file under another name": lambda root, _: (root / "flows/etl.py").rename(root / "flows/elt.py") and None,
    "the owner may execute it": mode("flows/etl.py", 0o744),
    "the owner may not execute it": mode("flows/run.sh", 0o644),
    "a link leads elsewhere": relinked,
    "a line of the Dockerfile": writing("Dockerfile", f"{SOME}\n"),
    "a line of .dockerignore that removes something": writing(".dockerignore", "*.log\ndata\nflows/lib\n"),
    "the value of an argument": asking(arguments=(("A", "2"),)),
    "the name of an argument": asking(arguments=(("B", "1"),)),
    "an argument more": asking(arguments=(("A", "1"), ("B", "1"))),
    "a secret argument more": asking(secret_arguments=(("TOKEN", "hunter2"), ("USER", ""))),
    "an argument that is a secret": asking(arguments=(), secret_arguments=(("A", "1"), ("TOKEN", "hunter2"))),
    "the target": asking(target="0"),
    "the platform": asking(platform="linux/arm64"),
    "the context": asking(context="flows"),
    "another Dockerfile": asking(dockerfile="all.Dockerfile"),
    "all of the context": asking(takes_whole_context=True),
}
KEEPING: Mapping[str, Change] = {
    "nothing": asking(),
    "times": touched,
    "what others may": mode("flows/etl.py", 0o600),
    "what the group may": mode("flows/etl.py", 0o674),
    "a folder's mode": mode("flows/lib", 0o700),
    "an unreachable file": writing("README.md", "A bigger shop."),
    "an ignored file": writing("data/big.csv", "1,3"),
    "an unreachable file more": writing("docs/new.md", ""),
    "caches": cached,
    "a line of .dockerignore that removes nothing": writing(".dockerignore", "*.log\ndata\nnothing\n# comment\n"),
    "a line of .dockerignore that removes what is not reached": writing(".dockerignore", "*.log\ndata\nREADME.md\n"),
    "a .dockerignore of its own that removes the same": writing("Dockerfile.dockerignore", "data\n"),
    "the order of arguments": asking(arguments=(("A", "1"),)[::-1]),
    "the value of a secret": asking(secret_arguments=(("TOKEN", "hunter3"),)),
    "the name of the image": asking(repository="shop/other"),
    "further tags": asking(aliases=("latest",)),
    "where it is pushed": asking(is_pushed=True, credentials="{{ prefect.blocks.docker-registry-credentials.hub }}"),
    "who asks": asking(source="prefect.yaml:3"),
}
ASKED = image(arguments=(("A", "1"),), secret_arguments=(("TOKEN", "hunter2"),))


class TestDigest:
    @pytest.mark.parametrize("change", CHANGING)
    def test_changes_with(self, shop: Path, change: str) -> None:
        before = read_inputs(shop, ASKED)
        after = read_inputs(shop, CHANGING[change](shop, ASKED) or ASKED)
        assert after.digest != before.digest

    @pytest.mark.parametrize("change", KEEPING)
    def test_does_not_change_with(self, shop: Path, change: str) -> None:
        before = read_inputs(shop, ASKED)
        tar = sent(shop, before)
        after = read_inputs(shop, KEEPING[change](shop, ASKED) or ASKED)
        assert after.digest == before.digest
        assert sent(shop, after) == tar

    def test_its_beginning_is_the_tag(self, shop: Path) -> None:
        inputs = read_inputs(shop, image())
        assert len(inputs.digest) == 64

    def test_names_and_contents_cannot_be_taken_for_one_another(self, tmp_path: Path) -> None:
        one = write_files(tmp_path / "one", {"Dockerfile": ALL, "a": "b"})
        two = write_files(tmp_path / "two", {"Dockerfile": ALL, "ab": ""})
        arguments = [(("A", "B=1"),), (("A", "B"), ("", "1")), (("A=B", "1"),), (("A", '"],["B","1'),)]
        digests = {read_inputs(one, image(arguments=each)).digest for each in arguments}
        digests |= {read_inputs(two, image()).digest, read_inputs(one, image()).digest}
        assert len(digests) == len(arguments) + 2

    def test_the_secret_itself_is_nowhere(self, shop: Path) -> None:
        inputs = read_inputs(shop, ASKED)
        assert "hunter2" not in repr(inputs)
        assert b"hunter2" not in sent(shop, inputs)

    def test_it_is_this_one(self, tmp_path: Path) -> None:
        """Whoever changes what it is over has all images built anew: a new `_FORM` says that it is meant."""
        root = write_files(tmp_path, {"Dockerfile": ALL, "a/b.py": "x = 1\n"})
        expected = "159b184e71944a7a70ae30f38eb653f26e854cd2b9f880bede2e66b290eba546"
        assert read_inputs(root, image()).digest == expected


class TestBases:
    @pytest.mark.parametrize(
        ("dockerfile", "expected"),
        [
            ("FROM python:3.11-slim\n", [("python:3.11-slim", "")]),
            ("FROM scratch\n", []),
            (f"FROM python@sha256:{'0' * 64}\n", []),
            ("ARG V=3.12\nFROM python:$V\n", [("python:3.12", "")]),
            ("ARG V\nFROM python:$V\n", []),
            ("FROM a AS one\nFROM one AS two\nFROM two\n", [("a", "")]),
            (
                "FROM a AS one\nFROM b AS two\nCOPY --from=two /x /x\nFROM one\nCOPY --from=1 /x /x\n",
                [("b", ""), ("a", "")],
            ),
            ("FROM a AS unused\nFROM b\n", [("b", "")]),
            ("FROM a AS tools\nFROM b\nRUN --mount=type=bind,from=tools,target=/t true\n", [("a", ""), ("b", "")]),
            ("FROM a\nFROM a\nCOPY --from=0 /x /x\n", [("a", "")]),
            ("FROM --platform=linux/amd64 a\n", [("a", "linux/amd64")]),
            ("FROM --platform=$TARGETPLATFORM a\n", [("a", "")]),
        ],
    )
    def test_images_that_are_no_stages(self, tmp_path: Path, dockerfile: str, expected: list[tuple[str, str]]) -> None:
        asked: list[tuple[str, str]] = []

        def base_of(name: str, platform: str) -> str:
            asked.append((name, platform))
            return f"sha256:{name}"

        inputs = read_inputs(tmp_path, with_dockerfile(dockerfile), base_of=base_of)
        assert sorted(asked) == sorted(expected)
        assert inputs.bases == tuple((name, f"sha256:{name}") for name, _ in expected)

    def test_the_platform_that_is_built_for(self, tmp_path: Path) -> None:
        written = "FROM --platform=$BUILDPLATFORM a AS tools\nFROM b\nCOPY --from=tools /x /x\n"
        spec = with_dockerfile(written, platform="linux/arm64")
        asked = read_inputs(tmp_path, spec, base_of=lambda image, platform: platform).bases
        assert asked == (("a", ""), ("b", "linux/arm64"))

    def test_a_stage_that_is_built(self, tmp_path: Path) -> None:
        written = "FROM a AS one\nFROM b AS two\n"
        assert read_inputs(tmp_path, with_dockerfile(written, target="ONE")).bases == (("a", ""),)

    def test_they_count(self, tmp_path: Path) -> None:
        digests = {
            read_inputs(tmp_path, with_dockerfile(ALL), base_of=lambda *_, o=o: o).digest for o in ("", "1", "2")
        }
        assert len(digests) == 3

    def test_a_name_that_only_a_secret_tells_is_not_asked_for(self, tmp_path: Path) -> None:
        spec = with_dockerfile("ARG R=hub\nFROM $R/etl\n", secret_arguments=(("R", "hunter2"),))
        assert read_inputs(tmp_path, spec).bases == ()


# ---------------------------------------------------------------------------------------------------------
# Properties
# ---------------------------------------------------------------------------------------------------------

NAMES = st.text("ab.é", min_size=1, max_size=3).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@dataclass(frozen=True)
class Node:
    """A file or a link."""

    content: bytes
    is_executable: bool = False
    is_link: bool = False


NODES = st.builds(Node, st.binary(max_size=5), st.booleans()) | st.builds(
    Node, st.text("ab/.", min_size=1, max_size=5).map(str.encode), st.just(False), st.just(True)
)
TREES = st.dictionaries(PATHS, NODES, min_size=1, max_size=8).map(
    lambda tree: {path: node for path, node in tree.items() if not any(each.startswith(f"{path}/") for each in tree)}
)


def planted(root: Path, tree: Mapping[str, Node], seed: int) -> Path:
    """A checkout of a tree, with times, modes, and an order in which things come to be, of its own."""
    chance = random.Random(seed)
    before = os.umask(chance.choice([0o022, 0o077, 0o000, 0o027]))
    try:
        for path in chance.sample(sorted(tree), len(tree)):
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if tree[path].is_link:
                place.symlink_to(os.fsdecode(tree[path].content))
            else:
                place.write_bytes(tree[path].content)
                place.chmod((place.stat().st_mode & 0o677) | (0o100 if tree[path].is_executable else 0))
            os.utime(place, (chance.randrange(10**9),) * 2, follow_symlinks=False)
    finally:
        os.umask(before)
    return root


@contextmanager
def folders(count: int) -> Iterator[list[Path]]:
    with tempfile.TemporaryDirectory() as top:
        found = [Path(top, f"checkout-{'x' * number}") for number in range(count)]
        for each in found:
            each.mkdir()
        yield found


class TestProperties:
    @settings(deadline=None)
    @given(TREES, st.integers(), st.integers())
    def test_two_checkouts_are_the_same(self, tree: Mapping[str, Node], one: int, two: int) -> None:
        with folders(2) as (here, there):
            first = read_inputs(planted(here, tree, one), with_dockerfile(ALL))
            second = read_inputs(planted(there, tree, two), with_dockerfile(ALL))
            assert first == second
            assert sent(here, first) == sent(there, second)
            assert set(files(first)) == set(tree)

    @settings(deadline=None)
    @given(TREES, TREES)
    def test_two_trees_are_not(self, one: Mapping[str, Node], two: Mapping[str, Node]) -> None:
        with folders(2) as (here, there):
            first = read_inputs(planted(here, one, 0), with_dockerfile(ALL))
            second = read_inputs(planted(there, two, 0), with_dockerfile(ALL))
            assert (first.digest == second.digest) is (one == two)

    @settings(deadline=None)
    @given(TREES, st.data())
    def test_one_byte_one_bit_one_file(self, tree: Mapping[str, Node], data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(tree)))
        node = tree[path]
        others = [replace(node, content=node.content + b"a")]
        others += [replace(node, is_executable=not node.is_executable)] if not node.is_link else []
        changed = data.draw(st.sampled_from([*others, None]))
        with folders(2) as (here, there):
            before = read_inputs(planted(here, tree, 0), with_dockerfile(ALL))
            after_tree = {name: each for name, each in {**tree, path: changed}.items() if each is not None}
            after = read_inputs(planted(there, after_tree, 0), with_dockerfile(ALL))
            assert before.digest != after.digest

    @settings(deadline=None)
    @given(TREES, st.data())
    def test_what_no_copy_reaches_does_not_matter(self, tree: Mapping[str, Node], data: st.DataObject) -> None:
        top = data.draw(st.sampled_from(sorted({path.partition("/")[0] for path in tree})))
        reached = {path: node for path, node in tree.items() if path == top or path.startswith(f"{top}/")}
        if tree.get(top, Node(b"")).is_link:
            return  # docker follows it, wherever it leads
        spec = with_dockerfile(f'FROM python:3.11-slim\nCOPY ["{top}", "/app/"]\n')
        with folders(2) as (here, there):
            full = read_inputs(planted(here, tree, 0), spec)
            part = read_inputs(planted(there, reached, 1), spec)
            assert full == part
            assert sent(here, full) == sent(there, part)

    @settings(deadline=None)
    @given(TREES)
    def test_what_is_sent_is_what_was_read(self, tree: Mapping[str, Node]) -> None:
        with folders(1) as (root,):
            inputs = read_inputs(planted(root, tree, 0), with_dockerfile(ALL))
            with tarfile.open(fileobj=io.BytesIO(sent(root, inputs))) as tar:
                found = {}
                for member in tar:
                    content = (tar.extractfile(member) or io.BytesIO()).read() if member.isfile() else b""
                    found[member.name] = member, content
        added = [DOCKERFILE_IN_CONTEXT, *([".dockerignore"] if ".dockerignore" not in tree else [])]
        assert set(found) == {*paths(inputs), *added}
        for entry in inputs.entries:
            member, content = found[entry.path]
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.mtime == datetime(1980, 1, 1, tzinfo=UTC).timestamp()
            assert member.mode == (
                0o777 if member.issym() else 0o755 if member.isdir() or entry.is_executable else 0o644
            )
            if entry.kind == "file" and entry.path != ".dockerignore":
                assert hashlib.sha256(content).hexdigest() == entry.content
            elif entry.kind == "link":
                assert member.linkname == entry.content


SIMPLE_PARTS = st.text("ab*?é", min_size=1, max_size=3).filter(lambda part: "**" not in part)
REMOVING = st.lists(SIMPLE_PARTS, min_size=1, max_size=3).map("/".join)
KEPT = PATHS.map(lambda path: f"!{path}")


class TestAgainstDockersPythonSdk:
    """`docker.utils.build.exclude_paths`, which packs contexts in docker-py.

    It differs on purpose, or knows less, in this: it always sends .dockerignore and Dockerfile; it does not look into
    removed folders for what an exception with wildcards keeps; it leaves it to the engine to make the folders above
    what it sends; and `**` is tested against docker's own cases in test_dockerignore.py.
    """

    @settings(deadline=None, max_examples=300)
    @given(TREES, st.lists(REMOVING | KEPT, max_size=5))
    def test_the_same_is_sent(self, tree: Mapping[str, Node], lines: list[str]) -> None:
        with folders(1) as (root,):
            planted(root, tree, 0)
            own = root.parent / "a.Dockerfile.dockerignore"
            own.write_text("\n".join(lines), encoding="utf-8")
            spec = image("a.Dockerfile", dockerfile_text=ALL, context=root.name)
            ours = read_inputs(root.parent, spec)
            theirs = exclude_paths(str(root), list(lines), dockerfile="no-such-file")
        above = {"/".join(path.split("/")[:depth]) for path in theirs for depth in range(1, path.count("/") + 1)}
        assert set(paths(ours)) == theirs | above


# ---------------------------------------------------------------------------------------------------------
# What is reached
# ---------------------------------------------------------------------------------------------------------

TREE = {
    "README.md": "",
    "requirements.txt": "",
    "requirements-dev.txt": "",
    "flows/etl.py": "",
    "flows/lib/a.py": "",
    "tests/a.py": "",
    "github.com/a/b.py": "",
}
FLOWS = ["flows/etl.py", "flows/lib/a.py"]
EVERYTHING = sorted(TREE)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_files(tmp_path, TREE)


def reached(root: Path, *lines: str, **fields: Any) -> list[str]:
    return files(read_inputs(root, with_dockerfile("\n".join(["FROM python:3.11-slim", *lines, ""]), **fields)))


class TestReached:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("RUN true", []),
            ("COPY flows /app/", FLOWS),
            ("COPY flows/ /app/", FLOWS),
            ("COPY ./flows/../flows /app/", FLOWS),
            ("COPY /flows /app/", FLOWS),
            ("COPY ../../flows /app/", FLOWS),
            ('COPY ["flows", "/app/"]', FLOWS),
            ("COPY --chown=1000 --link flows /app/", FLOWS),
            ("COPY --parents ./flows/./lib/a.py /app/", ["flows/lib/a.py"]),
            ("COPY --exclude=*.md flows /app/", FLOWS),
            ("COPY requirements*.txt /app/", ["requirements-dev.txt", "requirements.txt"]),
            ("COPY requirements[a-z].txt flows/et?.py /app/", ["flows/etl.py"]),
            ("COPY */a.py /app/", ["tests/a.py"]),
            ("COPY fl*/*b /app/", ["flows/lib/a.py"]),
            ("COPY <<EOF /app/x\nflows\nEOF", []),
            ("COPY --from=other flows /app/", []),
            ("ADD https://example.com/flows /app/", []),
            ("ADD --checksum=sha256:0 https://example.com/flows /app/", []),
            ("ADD git@example.com:team/etl.git /app/", []),
            ("ADD README.md /app/", ["README.md"]),
            ("ARG PLACE=flows\nCOPY $PLACE /app/", FLOWS),
            ("ARG SITE=https://example.com\nADD ${SITE}/x /app/", []),
            ("ENV PLACE=flows\nCOPY ${PLACE}/lib /app/", ["flows/lib/a.py"]),
            ("RUN --mount=type=bind,source=flows,target=/f true", FLOWS),
            ("RUN --mount=src=requirements.txt,target=/r true", ["requirements.txt"]),
            ("RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=x true", []),
            ("RUN --mount=type=bind,from=other,target=/f true", []),
            ("COPY github.com /app/", EVERYTHING[:0] or ["github.com/a/b.py"]),
        ],
    )
    def test_exactly_what_it_takes(self, tree: Path, line: str, expected: list[str]) -> None:
        assert reached(tree, line) == expected

    @pytest.mark.parametrize(
        "line",
        [
            "COPY . /app/",
            "COPY ./ /app/",
            "COPY / /app/",
            "COPY .. /app/",
            'COPY "" /app/',
            "COPY $UNKNOWN /app/",
            "ARG PLACE\nCOPY $PLACE /app/",
            "COPY fl\\\\ows /app/",
            "COPY --parents **/*.py /app/",
            "COPY [^r]* /app/",
            "ADD github.com/a/b.py /app/",
            "ONBUILD COPY flows /app/",
            "FROM company/python:onbuild",
            "CPOY flows /app/",
            "RUN --mount=target=/f true",
            "RUN --mount=type=bind,target=/f true",
            "RUN --mount=type=bind,source=$X,target=/f true",
        ],
    )
    def test_all_where_it_takes_all_or_nobody_can_tell(self, tree: Path, line: str) -> None:
        assert reached(tree, line) == EVERYTHING

    def test_all_where_somebody_says_so(self, tree: Path) -> None:
        assert reached(tree, "COPY flows /app/", takes_whole_context=True) == EVERYTHING

    def test_an_argument_that_is_given(self, tree: Path) -> None:
        assert reached(tree, "ARG PLACE=tests", "COPY $PLACE /app/", arguments=(("PLACE", "flows"),)) == FLOWS

    def test_all_where_a_secret_decides(self, tree: Path) -> None:
        assert reached(tree, "ARG P=tests", "COPY $P /app/", secret_arguments=(("P", "flows"),)) == EVERYTHING

    @pytest.mark.parametrize(
        ("syntax", "expected"),
        [
            ("docker/dockerfile:1.7-labs", FLOWS),
            ("docker.io/docker/dockerfile:1", FLOWS),
            ("example.com/mine:1", EVERYTHING),
        ],
    )
    def test_frontends(self, tree: Path, syntax: str, expected: list[str]) -> None:
        text = f"# syntax={syntax}\nFROM python:3.11-slim\nCOPY flows /app/\n"
        assert files(read_inputs(tree, with_dockerfile(text))) == expected

    def test_a_frontend_that_an_argument_names(self, tree: Path) -> None:
        assert reached(tree, "COPY flows /", arguments=(("BUILDKIT_SYNTAX", "example.com/mine"),)) == EVERYTHING

    def test_stages_behind_the_one_that_is_built_take_nothing(self, tree: Path) -> None:
        lines = ["COPY flows/lib /a", "FROM python:3.11-slim AS prod", "COPY tests /b", "FROM prod", "COPY . /c"]
        assert reached(tree, *lines, target="prod") == ["flows/lib/a.py", "tests/a.py"]
        assert reached(tree, *lines, target="0") == ["flows/lib/a.py"]
        assert reached(tree, *lines, target="no-such-stage") == EVERYTHING

    def test_folders_above_are_there(self, tree: Path) -> None:
        inputs = read_inputs(tree, with_dockerfile("FROM a\nCOPY flows/lib/a.py /app/\n"))
        assert paths(inputs) == ["flows", "flows/lib", "flows/lib/a.py"]

    def test_all_where_docker_follows_a_link(self, tree: Path) -> None:
        (tree / "current").symlink_to("flows")
        (tree / "flows/inner").symlink_to("../tests")
        for source in ("current", "current/lib", "curr*", "*/inner"):
            assert set(EVERYTHING) < set(reached(tree, f"COPY {source} /app/")), source
        assert reached(tree, "COPY flows /app/") == ["flows/etl.py", "flows/inner", "flows/lib/a.py"]

    def test_the_context_is_a_folder(self, tree: Path) -> None:
        assert reached(tree, "COPY lib /app/", context="flows") == ["lib/a.py"]
        assert reached(tree, "COPY . /app/", context="./flows/lib/") == ["a.py"]

    def test_nothing_of_an_empty_dockerfile_can_be_told(self, tree: Path) -> None:
        assert files(read_inputs(tree, with_dockerfile(""))) == EVERYTHING


# ---------------------------------------------------------------------------------------------------------
# What is left out
# ---------------------------------------------------------------------------------------------------------

_SEEN: list[Counter[str]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "os.scandir") and _SEEN and isinstance(arguments[0], str):
        _SEEN[-1][arguments[0]] += 1


sys.addaudithook(_note)


@contextmanager
def looking(root: Path) -> Iterator[Counter[str]]:
    """The files of a folder that are opened, and the folders that are listed, each with how often."""
    _SEEN.append(Counter())
    found: Counter[str] = Counter()
    try:
        yield found
    finally:
        seen = _SEEN.pop()
        found.update({path: count for path, count in seen.items() if path.startswith(f"{root}/")})


class TestIgnored:
    def test_what_changes_by_itself(self, tmp_path: Path) -> None:
        left_out = (".git/HEAD", ".orchestrator/x", "a/__pycache__/b", "a/b.pyc", ".venv/x", "a/.venv/x")
        kept = ("a/.git/HEAD", "a/b.py", "venv/x")
        write_files(tmp_path, dict.fromkeys((*left_out, *kept), ""))
        assert files(read_inputs(tmp_path, with_dockerfile(ALL))) == sorted(kept)

    def test_an_exception_takes_it_back(self, tmp_path: Path) -> None:
        write_files(tmp_path, {".dockerignore": "!.git\n.dockerignore", ".git/HEAD": "", "a/.venv/x": "", "b.pyc": ""})
        assert files(read_inputs(tmp_path, with_dockerfile(ALL))) == [".git/HEAD"]

    def test_folders_that_hold_only_caches_are_gone_in_another_checkout(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"gone/deep/__pycache__/a.pyc": "", "logs/a.log": "", "there/a.py": ""})
        write_files(tmp_path, {".dockerignore": "**/__pycache__\nlogs/*\n.dockerignore\n"})
        (tmp_path / "empty").mkdir()
        assert paths(read_inputs(tmp_path, with_dockerfile(ALL))) == ["empty", "logs", "there", "there/a.py"]
        copied = read_inputs(tmp_path, with_dockerfile("FROM a\nCOPY gone /app/\n"))
        assert (paths(copied), copied.missing) == (["gone"], ())

    def test_the_file_beside_the_dockerfile_goes_first(self, tmp_path: Path) -> None:
        ignores = {"docker/a.Dockerfile.dockerignore": "*\n!x", ".dockerignore": "x", "sub/.dockerignore": "y"}
        write_files(tmp_path, {**ignores, "docker/a.Dockerfile": ALL, "docker/b.Dockerfile": ALL, "x": "", "sub/y": ""})
        assert files(read_inputs(tmp_path, image("docker/a.Dockerfile"))) == ["x"]
        assert "x" not in files(read_inputs(tmp_path, image("docker/b.Dockerfile")))
        assert files(read_inputs(tmp_path, image("docker/b.Dockerfile", context="sub"))) == [".dockerignore"]

    def test_what_an_exception_keeps_has_its_folders(self, tmp_path: Path) -> None:
        write_files(tmp_path, {".dockerignore": "*\n!a/b/c.py\n!**/d.py", "a/b/c.py": "", "a/x.py": "", "e/f/d.py": ""})
        inputs = read_inputs(tmp_path, with_dockerfile(ALL))
        assert paths(inputs) == ["a", "a/b", "a/b/c.py", "e", "e/f", "e/f/d.py"]

    @pytest.mark.parametrize(
        "ignore", ["node_modules\n", "node_modules\n!README.md\n", "!node_modules/x\nnode_modules\n"]
    )
    def test_removed_folders_are_not_entered(self, tmp_path: Path, ignore: str) -> None:
        write_files(tmp_path, {".dockerignore": ignore, "node_modules/x/y": "", ".git/objects/x": "", "a/b": ""})
        with looking(tmp_path) as seen:
            read_inputs(tmp_path, with_dockerfile(ALL))
        assert not [path for path in seen if "node_modules" in path or ".git/" in path]
        assert seen[str(tmp_path / "a/b")] == 1

    @pytest.mark.parametrize(
        ("ignore", "line"), [(b"# fine\n[\n", 2), (b"!\n", 1), (b"data\n\xff\n", None)], ids=["class", "empty", "bytes"]
    )
    def test_docker_would_refuse_it(self, tmp_path: Path, ignore: bytes, line: int | None) -> None:
        write_files(tmp_path, {"Dockerfile": ALL})
        (tmp_path / ".dockerignore").write_bytes(ignore)
        with pytest.raises(ConfigurationError) as error:
            read_inputs(tmp_path, image())
        assert places(error.value.faults) == [("IMG005", f".dockerignore:{line}")]
        assert error.value.remedy

    def test_sockets_and_pipes(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{short}/socket")
            os.mkfifo(f"{short}/pipe")
            write_files(Path(short), {"a.py": ""})
            with caplog.at_level(logging.DEBUG, logger="orchestrator"):
                inputs = read_inputs(Path(short), with_dockerfile(ALL))
        assert paths(inputs) == ["a.py"]
        assert sorted(record.args for record in caplog.records) == [("pipe",), ("socket",)]


class TestLinks:
    def test_links_are_kept_wherever_they_lead(self, tmp_path: Path) -> None:
        root = write_files(tmp_path / "root", {"a.py": ""})
        targets = {"inside": "a.py", "outside": "../x", "nowhere": "/no/such", "folder": "/etc", "loop": "loop"}
        for name, target in targets.items():
            (root / name).symlink_to(target)
        inputs = read_inputs(root, with_dockerfile(ALL))
        links = {entry.path: entry.content for entry in inputs.entries if entry.kind == "link"}
        assert links == targets
        with tarfile.open(fileobj=io.BytesIO(sent(root, inputs))) as tar:
            assert {member.name: member.linkname for member in tar if member.issym()} == targets

    def test_a_context_behind_a_link(self, tmp_path: Path) -> None:
        root = write_files(tmp_path / "root", {"real/a.py": "", "real/.dockerignore": "b.py", "real/b.py": ""})
        (root / "linked").symlink_to("real")
        assert files(read_inputs(root, with_dockerfile(ALL, context="linked"))) == [".dockerignore", "a.py"]


class TestNames:
    ODD = (b"\xff.py", b"\xfe.py", "é.py".encode(), "é.py".encode("latin-1"), b"new\nline", b'q"uote', b"back\\slash")

    def test_any_name_is_possible_and_stays_what_it_is(self, tmp_path: Path) -> None:
        for name in self.ODD:
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"")
        inputs = read_inputs(tmp_path, with_dockerfile(ALL))
        assert {os.fsencode(path) for path in paths(inputs)} == set(self.ODD)
        with tarfile.open(fileobj=io.BytesIO(sent(tmp_path, inputs)), errors="surrogateescape") as tar:
            assert {os.fsencode(name) for name in tar.getnames()} >= set(self.ODD)

    def test_none_is_taken_for_another(self, tmp_path: Path) -> None:
        digests = set()
        for number, name in enumerate(self.ODD):
            (folder := tmp_path / str(number)).mkdir()
            Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"")
            digests.add(read_inputs(folder, with_dockerfile(ALL)).digest)
        assert len(digests) == len(self.ODD)

    def test_long_ones(self, tmp_path: Path) -> None:
        long = "/".join(["x" * 200] * 3)
        write_files(tmp_path, {f"{long}/a.py": "1"})
        (tmp_path / "link").symlink_to(long)
        inputs = read_inputs(tmp_path, with_dockerfile(ALL))
        assert texts(tmp_path, inputs)[f"{long}/a.py"] == "1"

    def test_a_dockerfile_that_is_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_bytes(b"FROM python:3.11-slim\nLABEL a=\xff\nCOPY . /app\n")
        inputs = read_inputs(tmp_path, image())
        assert dockerfile_in(inputs) == "Dockerfile"
        with tarfile.open(fileobj=io.BytesIO(sent(tmp_path, inputs))) as tar:
            assert tar.getnames() == ["Dockerfile"]


# ---------------------------------------------------------------------------------------------------------
# What is wrong
# ---------------------------------------------------------------------------------------------------------


class TestRefused:
    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            (image("docker/Dockerfile"), "The Dockerfile 'docker/Dockerfile' does not exist"),
            (image("flows"), "The Dockerfile 'flows' does not exist, or is no file"),
            (image("../Dockerfile"), "lies outside of the repository"),
            (image("/etc/passwd"), "lies outside of the repository"),
            (image("linked/Dockerfile"), "lies outside of the repository"),
            (image("null\0byte"), "does not exist"),
            (image(context="nowhere"), "The build context 'nowhere' of the image does not exist"),
            (image(context="README.md"), "is no folder"),
            (image(context=".."), "lies outside of the repository"),
            (image(context="linked"), "lies outside of the repository"),
        ],
    )
    def test_paths(self, shop: Path, spec: ImageSpec, said: str) -> None:
        outside = write_files(shop.parent / "outside", {"Dockerfile": ALL})
        (shop / "linked").symlink_to(outside)
        with pytest.raises(ConfigurationError, match="repository") as error:
            read_inputs(shop, replace(spec, source="prefect.yaml:7"))
        assert said in error.value.message
        assert error.value.location == "prefect.yaml:7"
        assert [(fault.code, fault.file_path) for fault in error.value.faults] == [("IMG001", spec.dockerfile)]

    def test_a_text_needs_no_file(self, shop: Path) -> None:
        assert files(read_inputs(shop, with_dockerfile(SOME))) == files(read_inputs(shop, image()))

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        """They are gone when their turn comes: whoever runs the tests may be allowed to read everything."""
        names = [f"{number}.py" for number in range(7)]
        write_files(tmp_path, dict.fromkeys(names, ""))
        cache = FileDigests()
        assert set(cache.listing(str(tmp_path))) == set(names)
        for name in names:
            (tmp_path / name).unlink()
        with pytest.raises(ImageError) as error:
            read_inputs(tmp_path, with_dockerfile(ALL), cache=cache)
        assert "'4.py' (No such file or directory) and 2 more" in error.value.message
        assert "5.py" not in error.value.message
        assert error.value.remedy

    def test_folders_that_cannot_be_read(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"a/b.py": ""})
        for line in ("COPY . /app/", "COPY a/* /app/"):
            cache = FileDigests()
            assert set(cache.listing(str(tmp_path))) == {"a"}
            (tmp_path / "a").rename(tmp_path / "b")
            with pytest.raises(ImageError, match=r"'a' \(No such file or directory\)"):
                read_inputs(tmp_path, with_dockerfile(f"FROM a\n{line}\n"), cache=cache)
            (tmp_path / "b").rename(tmp_path / "a")


def missing(root: Path, *lines: str, **fields: Any) -> list[tuple[str, int | None, str]]:
    spec = with_dockerfile("\n".join(["FROM python:3.11-slim", *lines, ""]), **fields)
    return [(fault.code, fault.line_number, fault.severity) for fault in read_inputs(root, spec).missing]


class TestMissing:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("COPY nothing /app/", [("IMG002", 2, "error")]),
            ("COPY nothing flows neither/ /app/", [("IMG002", 2, "error"), ("IMG002", 2, "error")]),
            ("COPY flows/etl.py/x /app/", [("IMG002", 2, "error")]),
            ("COPY \\\n nothing /app/", [("IMG002", 2, "error")]),
            ("RUN --mount=type=bind,source=nothing,target=/x true", [("IMG002", 2, "error")]),
            ("COPY nothing*.txt /app/", [("IMG002", 2, "warning")]),
            ("COPY nothing*.txt neither? /app/", [("IMG002", 2, "warning"), ("IMG002", 2, "warning")]),
            ("COPY flows nothing*.txt /app/", []),
            ("COPY <<EOF nothing*.txt /app/\nEOF", []),
            ("COPY run.log /app/", [("IMG003", 2, "error")]),
            ("COPY *.log /app/", [("IMG003", 2, "warning")]),
            ("COPY data/big.csv /app/", [("IMG003", 2, "error")]),
            ("COPY .git /app/", [("IMG003", 2, "error")]),
            ("COPY flows README.md / /app/", []),
            ("COPY $UNKNOWN /app/", []),
            ("COPY $UNKNOWN nothing /app/", [("IMG002", 2, "error")]),
            ("COPY flows/latest/x /app/", []),
            ("COPY --from=other nothing /app/", []),
            ("ADD https://example.com/nothing /app/", []),
        ],
    )
    def test_what_nobody_has(self, shop: Path, line: str, expected: list[tuple[str, int, str]]) -> None:
        write_files(shop, {".git/HEAD": ""})
        assert missing(shop, line) == expected

    def test_a_stage_that_the_image_does_not_need(self, shop: Path) -> None:
        stages = ["FROM python:3.11-slim AS test", "COPY nothing /app/", "FROM python:3.11-slim AS prod"]
        assert missing(shop, *stages) == []
        assert missing(shop, *stages, "COPY --from=test /app /app") == [("IMG002", 3, "error")]
        assert missing(shop, *stages, target="test") == [("IMG002", 3, "error")]
        assert missing(shop, *stages, "FROM $WHICH") == [("IMG002", 3, "error")]

    def test_what_is_said(self, shop: Path) -> None:
        text = "FROM python:3.11-slim\nCOPY run.log .venv nothing /app/\n"
        write_files(shop, {"Dockerfile": text, ".venv/x": ""})
        removed, ours, not_there = read_inputs(shop, image()).missing
        assert removed.location == "Dockerfile:2"
        assert "'run.log', which '*.log' (.dockerignore:1) removes" in removed.message
        assert "'.venv', which '**/.venv' (left out of all images) removes" in ours.message
        assert "'nothing', but there is no such file or folder in the root of the repository" in not_there.message
        assert all(fault.remediation for fault in (removed, ours, not_there))

    def test_nothing_is_said_of_what_is_not_understood(self, shop: Path) -> None:
        assert missing(shop, "CPOY x y", "COPY nothing /app/") == []


# ---------------------------------------------------------------------------------------------------------
# What is sent
# ---------------------------------------------------------------------------------------------------------


class TestSent:
    def test_a_dockerfile_that_is_sent_anyway_is_sent_once(self, shop: Path) -> None:
        inputs = read_inputs(shop, image("all.Dockerfile"))
        assert dockerfile_in(inputs) == "all.Dockerfile"
        assert set(texts(shop, inputs)) == {entry.path for entry in inputs.entries if entry.kind == "file"}

    def test_one_that_is_not_comes_with_what_removes_it(self, shop: Path) -> None:
        inputs = read_inputs(shop, image())
        assert dockerfile_in(inputs) == DOCKERFILE_IN_CONTEXT
        files = texts(shop, inputs)
        assert files[DOCKERFILE_IN_CONTEXT] == SOME
        assert files[".dockerignore"] == f".dockerignore\n{DOCKERFILE_IN_CONTEXT}\n"

    def test_an_ignore_file_that_the_image_holds_gets_a_line_more(self, shop: Path) -> None:
        files = texts(shop, read_inputs(shop, with_dockerfile(ALL)))
        assert files[".dockerignore"] == f"*.log\ndata\n\n{DOCKERFILE_IN_CONTEXT}\n"

    def test_one_that_would_remove_what_the_image_holds(self, shop: Path) -> None:
        """The engine knows nothing of the file beside the Dockerfile, which goes first."""
        write_files(shop, {"[a].Dockerfile": ALL, "[a].Dockerfile.dockerignore": "x", ".dockerignore": "*"})
        inputs = read_inputs(shop, image("[a].Dockerfile"))
        assert dockerfile_in(inputs) == "[a].Dockerfile"
        assert texts(shop, inputs)[".dockerignore"] == "*\n!.dockerignore\n!\\[a].Dockerfile\n"

    def test_a_file_of_that_name_is_not_overwritten(self, shop: Path) -> None:
        write_files(shop, {DOCKERFILE_IN_CONTEXT: "mine"})
        inputs = read_inputs(shop, with_dockerfile(ALL))
        files = texts(shop, inputs)
        assert files[DOCKERFILE_IN_CONTEXT] == "mine"
        assert files[dockerfile_in(inputs)] == ALL

    def test_another_text_goes_before_the_file(self, shop: Path) -> None:
        inputs = read_inputs(shop, image("all.Dockerfile", dockerfile_text="FROM a\nCOPY . /\n"))
        assert dockerfile_in(inputs) == DOCKERFILE_IN_CONTEXT
        assert texts(shop, inputs)[DOCKERFILE_IN_CONTEXT] == "FROM a\nCOPY . /\n"

    @pytest.mark.parametrize("text", ["x = 2", "x = 1 ", "", None])
    def test_a_file_that_changes_meanwhile(self, shop: Path, text: str | None) -> None:
        inputs = read_inputs(shop, image())
        (shop / "flows/etl.py").unlink()
        if text is not None:
            (shop / "flows/etl.py").write_text(text)
        with pytest.raises(ImageError, match=r"'flows/etl\.py' of the build context has changed while"):
            sent(shop, inputs)
        with tempfile.TemporaryDirectory() as folder, pytest.raises(ImageError, match="has changed while"):
            write_folder(shop, inputs, Path(folder))

    def test_a_file_that_changed_between_the_look_at_its_size_and_its_reading(self, shop: Path) -> None:
        inputs = read_inputs(shop, image())
        for size in (0, 100):
            entries = tuple(replace(each, size=size) if each.kind == "file" else each for each in inputs.entries)
            with pytest.raises(ImageError, match="has changed"):
                sent(shop, replace(inputs, entries=entries))

    def test_a_link_in_its_place_is_not_followed(self, shop: Path) -> None:
        inputs = read_inputs(shop, image())
        (shop / "flows/etl.py").rename(shop / "flows/moved.py")
        (shop / "flows/etl.py").symlink_to("moved.py")
        with pytest.raises(ImageError, match="has changed"):
            sent(shop, inputs)

    def test_large_files(self, tmp_path: Path) -> None:
        content = random.Random(1).randbytes(3_000_001)
        (tmp_path / "large").write_bytes(content)
        inputs = read_inputs(tmp_path, with_dockerfile(ALL))
        with tarfile.open(fileobj=io.BytesIO(sent(tmp_path, inputs))) as tar:
            file = tar.extractfile("large")
            assert file is not None and file.read() == content

    def test_as_a_folder(self, shop: Path, tmp_path: Path) -> None:
        inputs = read_inputs(shop, with_dockerfile(ALL))
        (folder := tmp_path / "out").mkdir()
        before = os.umask(0o077)
        write_folder(shop, inputs, folder)
        os.umask(before)
        assert (folder / "Dockerfile").read_text() == ALL
        again = read_inputs(folder / "context", replace(inputs.spec, takes_whole_context=True))
        assert again.entries == inputs.entries
        modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if not path.is_symlink()}
        assert {oct(mode) for mode in modes if mode & 0o077} == {"0o644", "0o755"}
        assert {path.lstat().st_mtime for path in (folder / "context").rglob("*")} == {315_532_800}
        assert (folder / "Dockerfile.dockerignore").is_file()


# ---------------------------------------------------------------------------------------------------------
# What is remembered
# ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def exact_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """File times are believed at once, instead of two seconds after the file was written."""
    monkeypatch.setattr(context_files, "_COARSEST_CLOCK", -(10**12))


class TestRemembered:
    def test_images_of_one_command_share_what_was_read(self, shop: Path) -> None:
        cache = FileDigests()
        with looking(shop) as seen:
            for name in ("all.Dockerfile", "Dockerfile", "all.Dockerfile"):
                read_inputs(shop, image(name), cache=cache)
                read_inputs(shop, image(name, context="flows"), cache=cache)
        assert seen[str(shop / "flows/etl.py")] == 1
        assert seen[str(shop / "flows/lib")] == 1

    def test_files_that_did_not_change_are_not_read_by_the_next(self, shop: Path, exact_clock: None) -> None:
        spec = image("all.Dockerfile")
        first = read(shop, spec)
        with looking(shop / "flows") as seen:
            assert read(shop, spec) == first
        assert set(seen) == {str(shop / "flows/lib")}
        write_files(shop, {"flows/etl.py": "x = 2"})
        with looking(shop / "flows") as seen:
            assert read(shop, spec) == read_inputs(shop, spec) != first
        assert str(shop / "flows/lib/deep.py") in seen  # by the one that remembers nothing

    def test_one_that_was_just_written_is_read_again(self, shop: Path) -> None:
        read(shop, image())
        with looking(shop / "flows") as seen:
            read(shop, image())
        assert seen[str(shop / "flows/etl.py")] == 1

    @pytest.mark.usefixtures("exact_clock")
    def test_another_file_with_the_same_size_and_time_of_writing(self, shop: Path) -> None:
        first = read(shop, image())
        status = (shop / "flows/etl.py").stat()
        write_files(shop, {"flows/etl.py": "x = 2"})
        os.utime(shop / "flows/etl.py", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert read(shop, image()).digest != first.digest

    @pytest.mark.usefixtures("exact_clock")
    def test_files_that_are_gone_are_forgotten_and_others_are_not(self, shop: Path) -> None:
        read(shop, image("all.Dockerfile"))
        (shop / "flows/lib/deep.py").unlink()
        write_files(shop, {"flows/new.py": ""})
        read(shop, image())
        kept = {Path(path).relative_to(shop).as_posix() for path in json.loads(cache_of(shop).read_bytes())["files"]}
        assert {"flows/new.py", "README.md"} < kept
        assert "flows/lib/deep.py" not in kept

    @pytest.mark.parametrize(
        "damage", [b"", b"{", b"[]", b'{"form": 1, "files": {"a": 1}}', b'{"form": 0}', b"[" * 10**5]
    )
    def test_a_damaged_cache_is_not_read(self, shop: Path, exact_clock: None, damage: bytes) -> None:
        first = read(shop, image())
        cache_of(shop).write_bytes(damage)
        assert read(shop, image()) == first

    def test_without_a_place_to_write_nothing_happens(self, shop: Path) -> None:
        (shop / ".orchestrator").write_text("in the way")
        assert read(shop, image()) == read_inputs(shop, image())

    @pytest.mark.usefixtures("exact_clock")
    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py")).write_bytes(b"x")
        first = read(tmp_path, with_dockerfile(ALL))
        with looking(tmp_path) as seen:
            assert read(tmp_path, with_dockerfile(ALL)) == first
        assert not [path for path in seen if path.endswith(".py")]


def read(root: Path, spec: ImageSpec) -> BuildInputs:
    """As a command does it."""
    cache = FileDigests(root)
    inputs = read_inputs(root, spec, cache=cache)
    cache.save()
    return inputs


def cache_of(root: Path) -> Path:
    return root / ".orchestrator/cache/context.cache"
