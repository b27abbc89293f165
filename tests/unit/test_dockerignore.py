"""Which files docker leaves out of a build context."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from docker.utils.build import PatternMatcher  # docker's Python SDK, an independent reading of the same rules
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dockerignore import dockerignore_of, matching_names, read_dockerignore
from orchestrator.repository import Repository
from tests.unit.builders import write_files


def removes(patterns: str, path: str) -> bool:
    return read_dockerignore(patterns).excludes(path)


class TestPatterns:
    """The cases of moby's own test for its matcher (patternmatcher_test.go), and those of docker's documentation."""

    @pytest.mark.parametrize(
        ("pattern", "path"),
        [
            ("**", "file"),
            ("**/", "dir/file"),
            ("**/**", "dir/file"),
            ("dir/**", "dir/dir2/file"),
            ("**/dir", "dir"),
            ("**/dir", "dir/file"),
            ("**/dir2/*", "dir/dir2/file"),
            ("**/dir2/**", "dir/dir2/dir3/file"),
            ("**file", "dir/dir/file"),
            ("**file", "myfile"),
            ("**/file*.txt*", "dir/dir/file.txt"),
            ("**/**/*.txt", "file.txt"),
            ("a**/*.txt", "a/dir/dir/file.txt"),
            ("a/*.txt**", "a/file.txt"),
            ("a[b-d]e", "ace"),
            ("a[^b-d]e", "aze"),
            (".*", ".foo"),
            ("abc?def", "abcZdef"),
            ("a(b)c/def", "a(b)c/def"),
            ("a.|)$(}+{bc", "a.|)$(}+{bc"),
            ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"),
            (r"a\*b", "a*b"),
            (r"[\]a]", "]"),
            (r"[x\-]", "-"),
            ("a?b", "a☺b"),
            ("[a-ζ]*", "α"),
            ("/build", "build/lib/x.py"),
            ("build/", "build"),
            ("./a//b/../c", "a/c"),
            ("*/temp*", "somedir/temporary.txt"),
            ("temp?", "tempa"),
        ],
    )
    def test_removed(self, pattern: str, path: str) -> None:
        assert removes(pattern, path)

    @pytest.mark.parametrize(
        ("pattern", "path"),
        [
            ("**/**/*.txt2", "dir/dir/file.txt"),
            ("a/*.txt", "a/dir/file.txt"),
            ("a[b-d]e", "ae"),
            (".*", "foo"),
            ("abc.def", "abcZdef"),
            ("abc/**", "abc"),
            ("**/.foo", "bar.foo"),
            ("**file*", "myfile"),
            ("a?b", "a/b"),
            ("a*b", "a/b"),
            ("[^x]", "x"),
            ("[z-a]", "m"),
            (r"a\*b", "ab"),
            ("*.txt", "dir/file.txt"),
            (".", "file"),
            ("..", "file"),
            ("/", "file"),
        ],
    )
    def test_kept(self, pattern: str, path: str) -> None:
        assert not removes(pattern, path)

    @pytest.mark.parametrize("pattern", ["[", "a[", "[^", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "\\", "!", "! "])
    def test_docker_refuses_the_whole_file_for_a_malformed_pattern(self, pattern: str) -> None:
        ignore = read_dockerignore(f"# fine\n{pattern}\n")
        assert [(fault.line_number, fault.written) for fault in ignore.faults] == [(2, pattern.strip())]
        assert ignore.patterns == ()


class TestExceptions:
    @pytest.mark.parametrize(
        ("patterns", "path", "removed"),
        [
            ("**\n!util/docker/web", "util/docker/web/foo", False),
            ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", True),
            ("docs\n!docs/README.md", "docs/README.md", False),
            ("!docs/README.md\ndocs", "docs/README.md", True),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
            ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", False),
            ("*\n! flows", "flows/etl.py", False),
            ("*\n!/flows/", "flows/etl.py", False),
        ],
    )
    def test_the_last_pattern_that_matches_wins(self, patterns: str, path: str, removed: bool) -> None:
        assert removes(patterns, path) is removed

    def test_comments_blank_lines_and_a_byte_order_mark(self) -> None:
        ignore = read_dockerignore("\ufeff*.log\n\n# *.py\n \t\r\n  spaced  \r\n")
        assert [(each.line_number, each.written) for each in ignore.patterns] == [(1, "*.log"), (5, "spaced")]

    def test_who_removed_it(self) -> None:
        reason = read_dockerignore("*.log\ndata\n!data/keep\n").reason("data/seed.csv")
        assert reason is not None
        assert (reason.line_number, reason.written) == (2, "data")

    def test_a_folder_need_not_be_listed_where_nothing_comes_back(self) -> None:
        assert read_dockerignore("data").excludes_all_below("data")
        assert not read_dockerignore("data\n!data/keep").excludes_all_below("data")
        assert not read_dockerignore("data/*").excludes_all_below("data")

    @pytest.mark.parametrize(
        ("patterns", "may_keep"),
        [
            ("data", False),
            ("data\n!README.md", False),
            ("!data/x\ndata", False),
            ("data\n!date/*", False),
            ("data\n!data/in/x", True),
            ("data\n!./data/", True),
            ("data\n!*/x", True),
            ("data\n!**/x", True),
            ("data\n!data/*/x", True),
            ("data\n!d*", True),
        ],
    )
    def test_which_exceptions_may_lead_into_a_folder(self, patterns: str, may_keep: bool) -> None:
        assert read_dockerignore(patterns).may_keep_below("data") is may_keep


class TestWhichFile:
    def test_the_one_beside_the_dockerfile_goes_first(self, tmp_path: Path) -> None:
        files = {".dockerignore": "root", "docker/a.Dockerfile.dockerignore": "own", "sub/.dockerignore": "sub"}
        repository = Repository(write_files(tmp_path, files))
        assert dockerignore_of(repository, "docker/a.Dockerfile", "").path == "docker/a.Dockerfile.dockerignore"
        assert dockerignore_of(repository, "docker/b.Dockerfile", "").excludes("root")
        assert dockerignore_of(repository, "docker/b.Dockerfile", "sub").excludes("sub")
        assert dockerignore_of(repository, "docker/b.Dockerfile", "docker").patterns == ()


NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
SIMPLE_PARTS = st.text("ab*?", min_size=1, max_size=3).filter(lambda part: "**" not in part)
SIMPLE_LINES = st.tuples(st.sampled_from(["", "!"]), st.lists(SIMPLE_PARTS, min_size=1, max_size=3)).map(
    lambda line: line[0] + "/".join(line[1])
)


LINES = SIMPLE_LINES | st.sampled_from(["**/a", "!**/a", "a/**", "!a/**/b", "**", "!**/b*"])


class TestFoldersThatNeedNotBeListed:
    @settings(deadline=None)
    @given(st.lists(LINES, min_size=1, max_size=5), PATHS, PATHS)
    def test_nothing_of_them_stays(self, lines: list[str], folder: str, below: str) -> None:
        ignore = read_dockerignore("\n".join(lines))
        if ignore.excludes(folder) and not ignore.may_keep_below(folder):
            assert ignore.excludes(f"{folder}/{below}")


class TestAgainstDockersPythonSdk:
    @settings(deadline=None)
    @given(st.lists(SIMPLE_LINES, min_size=1, max_size=5), PATHS)
    def test_the_same_is_removed(self, lines: list[str], path: str) -> None:
        """The SDK matches one parent only, of the pattern's own depth; without `**` that is the same."""
        assert removes("\n".join(lines), path) == PatternMatcher(lines).matches(path)

    @pytest.mark.parametrize(
        "lines", [["**/b"], ["a/**"], ["**/b/*.py"], ["a/**/c"], ["**"], ["**/*.py", "!a/b/y.py"], ["*", "!a/b/y.py"]]
    )
    def test_a_whole_context(self, tmp_path: Path, lines: list[str]) -> None:
        files = ("b/y.py", "a/b/y.py", "a/x/b/y.py", "a/x/c", "c", "x.py")
        write_files(tmp_path, dict.fromkeys(files, ""))
        ignore = read_dockerignore("\n".join(lines))
        kept = set(PatternMatcher(lines).walk(str(tmp_path)))
        assert {file for file in files if not ignore.excludes(file)} == kept & set(files)


class TestHostileInput:
    @settings(deadline=None)
    @given(st.text(), st.text(min_size=1))
    def test_random_text_never_crashes_it(self, text: str, path: str) -> None:
        ignore = read_dockerignore(text)
        assert ignore.excludes(path) in (True, False)
        with contextlib.suppress(IndexError):
            matching_names(text.splitlines()[0], [path])

    @settings(deadline=None)
    @given(st.text("a*?[]\\!/.-^", max_size=12), PATHS)
    def test_neither_do_patterns(self, text: str, path: str) -> None:
        assert read_dockerignore(text).excludes(path) in (True, False)

    def test_repeated_double_stars_take_no_time(self) -> None:
        assert not removes("**/" * 500 + "x", "a/" * 500 + "y")


def test_names_that_a_wildcard_of_copy_matches() -> None:
    names = ["requirements.txt", "requirements-dev.txt", "setup.py"]
    assert matching_names("requirements*.txt", names) == ["requirements-dev.txt", "requirements.txt"]
    assert matching_names("[", names) == []
