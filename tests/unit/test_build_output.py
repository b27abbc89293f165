"""What a build says → lines, the step that failed, its line, and what to do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.images.build_output import LAST_LINES, LONGEST_LINE, BuildLog, Failure, cleaned

DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG TAG=3.11
FROM python:${TAG}-slim AS base
LABEL a=b
ENV FOLDER=/opt
WORKDIR $FOLDER
RUN pip install wheel
FROM base
COPY requirements.txt .
RUN pip install wheel
# why
RUN echo one && \\
    # why not
    echo "two $FOLDER" \\
    && false
COPY --from=registry.example.com/tools:1 /bin/tool ${FOLDER}/bin
"""


def told(text: str, *, secrets: Sequence[str] = (), bits: Sequence[int] = ()) -> tuple[BuildLog, list[str]]:
    """A log that has taken a text, cut at some places, and the lines that it told."""
    lines: list[str] = []
    log = BuildLog(lines.append, secrets)
    places = [0, *sorted(bits), len(text)]
    for start, end in itertools.pairwise(places):
        log.take(text[start:end])
    log.end()
    return log, lines


def failure(output: str, reason: str = "", dockerfile: str = DOCKERFILE) -> Failure:
    log, _ = told(dedent(output))
    return log.failure(dockerfile, reason)


class TestLines:
    def test_as_a_terminal_would_show_them(self) -> None:
        text = (
            "plain\r\n\x1b[91merr\n\x1b[0m 10%\r 55%\r\x1b[2K 99%\n\x1b]0;title\x07titled\nbell\x07 and\ttab\n\nno end"
        )
        _, lines = told(text)
        assert lines == ["plain", "err", " 99%", "titled", "bell and\ttab", "", "no end"]

    @pytest.mark.parametrize("text", ["", "\r", "\x1b[31m\x1b[0m"])
    def test_nothing_to_show(self, text: str) -> None:
        assert cleaned(text) == ""

    def test_the_last_thirty(self) -> None:
        log, _ = told("".join(f"line {number}\n" for number in range(1000)))
        assert log.last_lines == tuple(f"line {number}" for number in range(1000 - LAST_LINES, 1000))

    def test_a_line_without_an_end_is_cut(self) -> None:
        log, lines = told("x" * 500_000 + "\nnext\n", bits=range(0, 500_000, 1000))
        assert lines == ["x" * LONGEST_LINE + "…", "next"]
        assert log.last_lines == tuple(lines)

    def test_a_progress_bar_without_an_end_shows_its_end(self) -> None:
        text = "".join(f"\r{number:6} of 100000 bytes" for number in range(100_000)) + "\nnext\n"
        _, lines = told(text, bits=range(0, len(text), 997))
        assert lines == [" 99999 of 100000 bytes", "next"]

    @given(st.text("ab\n\r", max_size=60), st.lists(st.integers(0, 60)))
    def test_however_it_arrives(self, text: str, bits: list[int]) -> None:
        assert told(text, bits=[min(bit, len(text)) for bit in bits])[1] == told(text)[1]


class TestSecrets:
    @given(st.lists(st.integers(0, 40)))
    def test_however_they_arrive(self, bits: list[int]) -> None:
        text = "the token is \x1b[31mgeh\x1b[0meim-42, once more: geheim-42\n"
        log, lines = told(text, secrets=["geheim-42"], bits=bits)
        assert lines == ["the token is ********, once more: ********"]
        assert "geheim" not in "".join(log.last_lines)

    def test_where_a_line_is_cut(self) -> None:
        for before in range(LONGEST_LINE - 12, LONGEST_LINE + 2):
            text = "x" * before + "geheim-42" + "\x1b[31m" * 100 + "y" * 5000
            _, (line,) = told(text, secrets=["geheim-42"], bits=range(0, len(text), 700))
            assert "geh" not in line and len(line) == LONGEST_LINE + 1

    def test_of_several_lines(self) -> None:
        _, lines = told("a key:\nBEGIN\nabcdefgh\nEND\n", secrets=["BEGIN\nabcdefgh\nEND"])
        assert lines == ["a key:", "********", "********", "********"]

    def test_in_the_reason(self) -> None:
        log, _ = told("Step 1/1 : RUN echo geheim-42\n", secrets=["geheim-42"])
        found = log.failure("FROM a\n", "cannot do geheim-42")
        assert found.step == "Step 1/1: RUN echo ********"
        assert found.reason == "cannot do ********"


class TestClassic:
    def test_the_step_that_failed(self) -> None:
        output = """\
            Step 9/10 : RUN pip install wheel
             ---> Using cache
             ---> 4b1e841d0f74
            Step 10/11 : RUN echo one &&     echo "two $FOLDER"     && false
             ---> Running in 36e4133cce4c
            one
            two /opt
            Removing intermediate container 36e4133cce4c
        """
        command = """/bin/sh -c echo one &&     echo "two $FOLDER"     && false"""
        found = failure(output, f"The command '{command}' returned a non-zero code: 1")
        assert found == Failure(
            step='Step 10/11: RUN echo one && echo "two $FOLDER" && false',
            line_number=12,
            reason="it ended with exit code 1",
            remedy="The last lines of its output say why.",
        )

    @pytest.mark.parametrize(
        ("step", "line"),
        [
            ("6/11 : RUN pip install wheel", 7),
            ("9/11 : RUN pip install wheel", 10),
            ("2/11 : FROM python:3.11-slim", 3),
        ],
    )
    def test_by_its_number(self, step: str, line: int) -> None:
        assert failure(f"Step {step}\n", "no").line_number == line

    def test_by_its_text_where_the_number_means_another_one(self) -> None:
        assert failure("Step 3/12 : WORKDIR $FOLDER\n", "no").line_number == 6

    def test_labels_of_ours_stand_in_no_line(self) -> None:
        assert failure("Step 12/12 : LABEL io.orchestrator.project=shop\n", "no").line_number is None

    def test_a_long_step(self) -> None:
        step = failure("Step 1/1 : RUN " + "x" * 500 + "\n", "no").step
        assert step.endswith("x…") and len(step) < 150

    @pytest.mark.parametrize(
        "message", ["dockerfile parse error line 4: unknown instruction: FOO", "Dockerfile parse error on line 4: no"]
    )
    def test_what_cannot_be_read(self, message: str) -> None:
        found = failure("", message)
        assert (found.step, found.line_number, found.reason) == ("", 4, message)
        assert found.remedy == "Correct the Dockerfile."

    def test_a_heredoc(self) -> None:
        text = "FROM a\nRUN <<EOF\necho a\nEOF\n"
        found = failure("", "dockerfile parse error line 3: unknown instruction: ECHO", text)
        assert "buildx" in found.remedy

    def test_a_step_that_prints_what_buildkit_prints(self) -> None:
        output = "Step 7/11 : FROM base\nDockerfile:99\n--------------------\n"
        assert failure(output, "no").line_number == 8


class TestBuildKit:
    def test_without_an_excerpt(self) -> None:
        """As version 20.10 says it."""
        output = """\
            #9 [stage-1 2/4] COPY requirements.txt .
            #9 CACHED

            #11 [stage-1 4/4] RUN echo one &&     echo "two /opt"     && false
            #11 sha256:a64d545e517d3ed9a0ce3ccf076d305bb42b7fc524682ec709f6a83b826a8522
            #11 0.084 one
            #11 0.084 two /opt
            #11 ERROR: executor failed running [/bin/sh -c echo one && false]: exit code: 137
            ------
             > [stage-1 4/4] RUN echo one &&     echo "two /opt"     && false:
            ------
            executor failed running [/bin/sh -c echo one &&     echo "two $FOLDER"     && false]: exit code: 137
        """
        found = failure(output)
        assert found.step == 'Step 4/4 of stage-1: RUN echo one && echo "two /opt" && false'
        assert (found.line_number, found.reason) == (12, "it ended with exit code 137")
        assert "memory" in found.remedy

    def test_with_an_excerpt(self) -> None:
        """As versions from 23 on say it; later ones repeat output, and name a page."""
        output = """\
            #12 [stage-1 4/5] RUN echo one &&     echo "two /opt"     && false
            #12 0.101 one
            #12 ERROR: process "/bin/sh -c echo one && false" did not complete successfully: exit code: 1
            ------
             > [stage-1 4/5] RUN echo one &&     echo "two /opt"     && false:
            0.101 one
            ------
            Dockerfile:12
            --------------------
              11 |     # why
              12 | >>> RUN echo one && \\
              13 | >>>     # why not
              14 | >>>     echo "two $FOLDER" \\
              15 | >>>     && false
              16 |     COPY --from=registry.example.com/tools:1 /bin/tool ${FOLDER}/bin
            --------------------
            ERROR: failed to build: failed to solve: process "/bin/sh" did not complete successfully: exit code: 1

            View build details: docker-desktop://dashboard/build/default/default/abc
        """
        found = failure(output)
        assert (found.line_number, found.reason) == (12, "it ended with exit code 1")
        assert found.step.startswith("Step 4/5 of stage-1: RUN echo one")

    def test_the_same_step_in_two_stages(self) -> None:
        assert failure("------\n > [base 3/3] RUN pip install wheel:\n").line_number == 7
        assert failure("------\n > [stage-1 3/5] RUN pip install wheel:\n").line_number == 10
        assert failure("------\n > [linux/arm64 stage-1 3/5] RUN pip install wheel:\n").line_number == 10

    @pytest.mark.parametrize(
        ("step", "line"),
        [
            ("[base 7/9] WORKDIR /opt", 6),
            ("[stage-1 9/9] COPY --from=registry.example.com/tools:1 /bin/tool /opt/bin", 16),
            ("[stage-1 2/9] RUN inherited", None),
        ],
    )
    def test_by_its_text_where_base_images_add_steps(self, step: str, line: int | None) -> None:
        assert failure(f"------\n > {step}:\n").line_number == line

    def test_a_file_that_is_not_there(self) -> None:
        output = """\
             > [2/2] COPY nothing /x:
            ------
            failed to compute cache key: "/nothing" not found: not found
        """
        found = failure(output, dockerfile="FROM a\n\nCOPY nothing /x\n")
        assert (found.step, found.line_number) == ("Step 2/2: COPY nothing /x", 3)
        assert ".dockerignore" in found.remedy

    @pytest.mark.parametrize(
        ("image", "line"),
        [
            ("docker.io/library/python:3.11-slim", 3),
            ("registry.example.com/tools:1", 16),
            ("docker.io/library/other:1", None),
        ],
    )
    def test_an_image_that_cannot_be_had(self, image: str, line: int | None) -> None:
        output = f"""\
            #3 [internal] load metadata for {image}
            #3 ERROR: failed to do request
            ------
             > [internal] load metadata for {image}:
            ------
            failed to solve with frontend dockerfile.v0: failed to create LLB definition: {image}: not found
        """
        found = failure(output)
        assert (found.step, found.line_number, found.reason) == ("", line, f"{image}: not found")
        assert "name and the tag of the base image" in found.remedy

    def test_what_it_says_of_the_disk(self) -> None:
        output = """\
             > [stage-1 3/5] RUN pip install wheel:
            #9 1.2 OSError: [Errno 28] No space left on device
            ------
            executor failed running [/bin/sh -c pip install wheel]: exit code: 1
        """
        assert "docker system df" in failure(output).remedy

    def test_a_client_that_says_something_else(self) -> None:
        assert failure("unknown flag: --iidfile\nSee 'docker build --help'.\n").reason == "unknown flag: --iidfile"
        assert failure("\nKilled\n").reason == "Killed"
        assert failure("").reason == "it says nothing"
