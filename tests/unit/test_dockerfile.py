"""What reading a Dockerfile tells."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dockerfile import INSTRUCTIONS, Dockerfile, Value, read_dockerfile


def sources(dockerfile: Dockerfile) -> list[tuple[str, str | None]]:
    return [(source.written, source.path.text) for copy in dockerfile.copies for source in copy.sources]


def lines_of(dockerfile: Dockerfile) -> list[tuple[str, int, int]]:
    return [(each.name, each.line_number, each.end_line_number) for each in dockerfile.instructions]


class TestLines:
    def test_continued_lines_comments_and_blank_lines(self) -> None:
        text = "# a comment\nFROM a:1\n\nrun one \\\n  # why\n\n  && two \\  \n  && three\n\tUSER me\n"
        read = read_dockerfile(text)
        assert lines_of(read) == [("FROM", 2, 2), ("RUN", 4, 8), ("USER", 9, 9)]
        assert read.instructions[1].arguments.split() == ["one", "&&", "two", "&&", "three"]
        assert read.faults == ()

    def test_windows_line_ends_and_a_byte_order_mark(self) -> None:
        read = read_dockerfile("\ufeffFROM a:1\r\nRUN x \\\r\n  y\r\n")
        assert lines_of(read) == [("FROM", 1, 1), ("RUN", 2, 3)]

    def test_two_backslashes_do_not_continue(self) -> None:
        assert lines_of(read_dockerfile("FROM a:1\nRUN x \\\\\nUSER me")) == [
            ("FROM", 1, 1),
            ("RUN", 2, 2),
            ("USER", 3, 3),
        ]

    def test_another_escape_character(self) -> None:
        text = "# escape=`\nFROM a:1\nCOPY a `\n  c:\\dir\nUSER me\\\n"
        read = read_dockerfile(text)
        assert lines_of(read) == [("FROM", 2, 2), ("COPY", 3, 4), ("USER", 5, 5)]
        assert read.copies[0].destination == "c:\\dir"

    def test_directives_stand_first_or_are_comments(self) -> None:
        assert read_dockerfile("# syntax=docker/dockerfile:1\n# escape=`\nFROM a").directives == {
            "syntax": "docker/dockerfile:1",
            "escape": "`",
        }
        assert read_dockerfile("# a comment\n# escape=`\nFROM a").directives == {}
        assert read_dockerfile("\n# escape=`\nFROM a").directives == {}

    def test_flags(self) -> None:
        (copy,) = read_dockerfile("FROM a:1\nCOPY --chown=1:2 --link --exclude=*.md --from=build /x /y").copies
        assert copy.instruction.flags == (("chown", "1:2"), ("link", ""), ("exclude", "*.md"), ("from", "build"))
        assert copy.instruction.flag("link") == ""
        assert copy.instruction.flag("parents") is None
        assert not copy.is_from_context


class TestHeredocs:
    def test_their_lines_are_no_instructions(self) -> None:
        text = "FROM a:1\nRUN <<EOF\npip install x\nFROM nothing\nEOF\nUSER me\n"
        read = read_dockerfile(text)
        assert lines_of(read) == [("FROM", 1, 1), ("RUN", 2, 5), ("USER", 6, 6)]
        assert read.instructions[1].heredocs == ("pip install x\nFROM nothing\n",)

    def test_several_quoted_and_with_tabs(self) -> None:
        text = "FROM a:1\nCOPY <<'ONE' <<-\"TWO\" b.txt /etc/\n1\nONE\n\t2\n\tTWO\nONBUILD RUN <<E\nx\nE\n"
        read = read_dockerfile(text)
        assert read.instructions[1].heredocs == ("1\n", "2\n")
        assert sources(read) == [("b.txt", "b.txt")]
        assert read.instructions[2].heredocs == ("x\n",)

    @pytest.mark.parametrize("command", ['echo "see <<EOF here"', "echo $((1 <<2))", "cat <<<word", "echo a<<b"])
    def test_what_is_none(self, command: str) -> None:
        read = read_dockerfile(f"FROM a:1\nRUN {command}\nUSER me")
        assert lines_of(read)[-1] == ("USER", 3, 3)
        assert read.faults == ()

    def test_without_end(self) -> None:
        (fault,) = read_dockerfile("FROM a:1\nRUN <<EOF\npip install x\n").faults
        assert (fault.line_number, fault.word) == (2, "EOF")


class TestStages:
    def test_names_platform_and_parents(self) -> None:
        text = "FROM --platform=linux/amd64 python:3.11 AS Build\nFROM build\nFROM other@sha256:0 as last\n"
        one, two, three = read_dockerfile(text).stages
        assert (one.base.text, one.name, one.platform, one.parent) == ("python:3.11", "build", "linux/amd64", None)
        assert (two.base_written, two.parent) == ("build", 0)
        assert (three.line_number, three.name, three.parent) == (3, "last", None)

    def test_arguments_before_the_first(self) -> None:
        text = "ARG V=3.11\nARG W\nFROM python:${V}-slim\nFROM python:$W\nFROM python:${W:-3.12}\nFROM $UNSET\n"
        known, unknown, default, unset = read_dockerfile(text).stages
        assert known.base == Value("python:3.11-slim", from_argument=True)
        assert unknown.base == Value(None, from_argument=True)
        assert default.base == Value("python:3.12", from_argument=True)
        assert unset.base.text is None

    def test_arguments_that_are_given(self) -> None:
        stages = read_dockerfile("ARG V=3.11\nARG W\nFROM a:$V\nFROM a:$W", {"V": "4", "W": "5"}).stages
        assert [stage.base.text for stage in stages] == ["a:4", "a:5"]


class TestCopies:
    def test_forms(self) -> None:
        text = (
            'FROM a\nCOPY a b/ c/*.txt dest/\nADD ["with space.txt", "x", "/y/"]\nCOPY "quoted" /z\nCOPY [ab].txt /z\n'
        )
        assert sources(read_dockerfile(text)) == [
            ("a", "a"),
            ("b/", "b/"),
            ("c/*.txt", "c/*.txt"),
            ("with space.txt", "with space.txt"),
            ("x", "x"),
            ('"quoted"', "quoted"),
            ("[ab].txt", "[ab].txt"),
        ]

    def test_environment_and_arguments(self) -> None:
        text = (
            'ARG GLOBAL=g\nFROM a AS one\nENV D=src E="a b"\nENV OLD old value\nARG N=name\nARG GLOBAL\nARG D=no\n'
            "COPY $D ${E} $OLD $N ${GLOBAL} $BASE ${D:-x} '$D' \\$D ${D#x} /\n"
            "FROM one\nCOPY ${D}/x $N /\nFROM b\nCOPY $D /\n"
        )
        found = [source.path for copy in read_dockerfile(text).copies for source in copy.sources]
        assert found == [
            Value("src"),
            Value("a b"),
            Value("old value"),
            Value("name", from_argument=True),
            Value("g", from_argument=True),
            Value(None),  # may be set in the base image
            Value("src"),
            Value("$D"),
            Value("$D"),
            Value(None),  # patterns are not worked out
            Value("src/x"),
            Value("name", from_argument=True),
            Value(None),
        ]

    def test_an_env_sees_what_held_before_it(self) -> None:
        read = read_dockerfile("FROM a\nENV A=1\nENV A=2 B=$A\nCOPY $A $B /")
        assert [path for _, path in sources(read)] == ["2", "1"]

    @pytest.mark.parametrize("remote", ["https://x/y.tgz", "git@github.com:a/b.git", "ssh://x/y"])
    def test_remote_sources(self, remote: str) -> None:
        (copy,) = read_dockerfile(f"FROM a\nADD {remote} local /x").copies
        assert [source.is_remote for source in copy.sources] == [True, False]

    def test_wildcards(self) -> None:
        (copy,) = read_dockerfile("FROM a\nCOPY *.txt a? [ab] plain /x").copies
        assert [source.has_wildcards for source in copy.sources] == [True, True, True, False]


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "line", "word"),
        [
            ("FROM a\nRUNN x", 2, "RUNN"),
            ("RUN x\nFROM a", 1, "RUN"),
            ("FROM a\nCOPY x", 2, "COPY"),
            ("FROM a b", 1, "FROM"),
            ("FROM", 1, "FROM"),
            ("FROM a\nRUN <<E\nx", 2, "E"),
            ("# nothing\nARG X", 1, ""),
            ("", 1, ""),
        ],
    )
    def test_each(self, text: str, line: int, word: str) -> None:
        fault = read_dockerfile(text).faults[0]
        assert (fault.line_number, fault.word) == (line, word)
        assert fault.message

    def test_all_together_in_their_order(self) -> None:
        assert [fault.line_number for fault in read_dockerfile("FROM a\nX\nRUN <<E\nE\nY\nCOPY z").faults] == [2, 5, 6]

    def test_another_language_has_none(self) -> None:
        assert read_dockerfile("# syntax=devthefuture/dockerfile-x\nFROM a\nINCLUDE b").faults == ()
        assert read_dockerfile("# syntax=docker/dockerfile:1.7\nFROM a\nINCLUDE b").faults

    def test_what_is_no_word_is_not_repeated(self) -> None:
        (fault,) = read_dockerfile("FROM a\nx9$kd02Kd0wjD8sk\n").faults
        assert "9$KD" not in fault.message.upper()


LINES = st.one_of(
    st.tuples(st.sampled_from(sorted(INSTRUCTIONS)), st.text(max_size=30)).map(" ".join),
    st.sampled_from(
        ["RUN <<EOF", "EOF", "COPY <<-X /", "\tX", "ENV A=$A", "ARG A", "COPY $A ${A:-", "FROM a \\", "# x"]
    ),
    st.text(max_size=30),
)


class TestHostileInput:
    @settings(deadline=None)
    @given(st.text())
    def test_random_text_never_crashes_it(self, text: str) -> None:
        assert read_dockerfile(text) == read_dockerfile(text)

    @settings(deadline=None)
    @given(st.lists(LINES, max_size=12).map("\n".join))
    def test_neither_do_odd_instructions(self, text: str) -> None:
        read = read_dockerfile(text)
        count = text.count("\n") + 1
        assert all(1 <= each.line_number <= each.end_line_number <= count for each in read.instructions)
        assert all(1 <= fault.line_number <= count for fault in read.faults)

    @pytest.mark.parametrize(
        "text", ["COPY " + "[" * 100_000, "RUN " + '"' * 20_001, "ENV " + "a=\\" * 9000, "\\\n" * 9000]
    )
    def test_huge_values(self, text: str) -> None:
        assert read_dockerfile(f"FROM a\n{text}").instructions[0].line_number == 1
