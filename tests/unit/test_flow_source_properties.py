"""Properties of discovery: what generated modules yield, and what must not change it.

A generator puts modules together from building blocks, in every order and nesting, and works out at the same time what
must be found in them. That it is right about this is checked against what importing the modules with Prefect gives.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator import scan_cache, scanning
from orchestrator.discovery import discover
from orchestrator.model import FlowMetadata
from tests.unit.builders import write_files

# ---------------------------------------------------------------------------------------------------------
# Generated modules
# ---------------------------------------------------------------------------------------------------------

LIBRARY = {
    "lib/__init__.py": "from . import decorators as deco\nfrom .decorators import job as exported\n",
    "lib/decorators.py": """
        import functools
        import prefect
        from prefect import flow as base
        flow = prefect.flow
        job = functools.partial(base, retries=2)
        def bare_or_not(fn=None, **options):
            if fn is None:
                return functools.partial(bare_or_not, **options)
            return base(log_prints=True, **options)(fn)
        def timed(fn):
            @functools.wraps(fn)
            def timed_fn(*args, **kwargs):
                return fn(*args, **kwargs)
            return timed_fn
    """,
    "lib/chain.py": "from lib.decorators import *\nfrom lib.decorators import flow as starred\n",
    "lib/names.py": "REGION = 'eu'\nclass Names:\n    NIGHTLY = 'nightly'\n",
    "lib/factories.py": """
        from prefect import flow
        from lib.names import REGION
        def build(label, /, table="orders", *, suffix=None):
            @flow(name=f"{REGION}-{label}-{table}-{suffix or 'full'}")
            def load(day: str, size: int = 3):
                return day
            return load
    """,
    "lib/elsewhere.py": """
        from prefect import flow
        @flow
        def shared(day): ...
        @flow(name="other")
        def other_shared(): ...
    """,
}

SPELLINGS = (
    ("from prefect import flow as alias_a", "alias_a"),
    ("from prefect import flow", "flow"),
    ("import prefect", "prefect.flow"),
    ("import prefect as pf", "pf.flow"),
    ("from prefect.flows import flow as alias_b", "alias_b"),
    ("import prefect.flows", "prefect.flows.flow"),
    ("from prefect import flows as of_flows", "of_flows.flow"),
    ("from lib.decorators import flow as alias_c", "alias_c"),
    ("from lib.decorators import job as alias_d", "alias_d"),
    ("from lib.decorators import bare_or_not", "bare_or_not"),
    ("import lib.decorators as decorators", "decorators.job"),
    ("import lib.chain", "lib.chain.job"),
    ("from lib import deco", "deco.flow"),
    ("from lib import exported", "exported"),
    ("from lib.chain import *", "starred"),
)
SIGNATURES = ("", "a", "a, b: int = 1", "*, c=None", "a, /, b", "a: str = 'x', **more", "day: 'str | None' = None")
HEAD = """
import asyncio, contextlib, functools, os
from lib.names import REGION, Names
from lib import names
PREFIX = "acme"
LABEL = f"{PREFIX}-{REGION}"
"""


@dataclass(frozen=True)
class Expected:
    """A flow that must be found.

    `name` is None where it cannot be known by reading; `mark` is the text that its first line begins with.
    """

    binding: str
    name: str | None
    mark: str
    is_async: bool = False
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Some statements that stand for themselves, what they import, and the flows that they make."""

    source: str
    imports: tuple[str, ...] = ()
    flows: tuple[Expected, ...] = ()

    def wrapped(self, before: str, after: str = "") -> Block:
        return replace(self, source=f"{before}\n{indent(self.source, '    ')}\n{after}".rstrip("\n") + "\n")


class Generator:
    """Makes modules, with what must be found in them.

    Args:
        random: where choices come from.
        local_flow: modules have a function of their own that is called `flow`.
    """

    def __init__(self, random: Random, *, local_flow: bool = False) -> None:
        self.random = random
        self._number = 0
        self._spellings = [each for each in SPELLINGS if not (local_flow and each[1] == "flow")]
        self._head = HEAD + ("def flow(fn):\n    return fn\n@flow\ndef no_flow(): ...\n" if local_flow else "")

    def blocks(self) -> list[Block]:
        kinds = [getattr(self, name) for name in dir(self) if name.startswith("make_")]
        return [self._in_something(self.random.choice(kinds)()) for _ in range(self.random.randint(1, 6))]

    def module(self, blocks: Sequence[Block]) -> str:
        imports = dict.fromkeys(line for block in blocks for line in block.imports)
        return "\n".join([*imports, self._head, *(block.source for block in blocks)])

    # Parts

    def fresh(self, kind: str) -> str:
        self._number += 1
        return f"{kind}_{self._number}"

    def spelling(self) -> tuple[str, str]:
        return self.random.choice(self._spellings)

    def name_option(self) -> tuple[str, str | None]:
        """An expression for `name=` and what it is worth."""
        text = self.fresh("named").replace("_", "-")
        return self.random.choice(
            [
                (repr(text), text),
                (f"'{text[:3]}' '{text[3:]}'", text),
                (f"'{text}-' + PREFIX", f"{text}-acme"),
                (f"f'{text}-{{LABEL}}'", f"{text}-acme-eu"),
                (f"f'{text}-{{names.REGION}}-{{Names.NIGHTLY}}'", f"{text}-eu-nightly"),
                (f"'{text.upper()}'.lower()", text),
                (f"None or '{text}'", text),
                (f"os.environ.get('NO_SUCH_VARIABLE', '{text}')", None),
                (f"'{text}-%s' % 1", None),
            ]
        )

    def options(self, default: str) -> tuple[str, str | None]:
        """The arguments of a decorator, and the flow's name."""
        written, name = self.name_option()
        return self.random.choice(
            [
                ("retries=1", default),
                ("name=None, description='It.'", default),
                ("name=''", default),
                (f"name={written}", name),
                (f"timeout_seconds=3, name={written}, version='x'", name),
                (f"**{{'name': {written}}}", name),
                (f"**dict(name={written})", name),
            ]
        )

    def function(self, name: str, first: str = "") -> tuple[str, bool, tuple[str, ...]]:
        """A definition, whether it is async, and its parameters as Prefect sees them."""
        is_async, is_generator = self.random.random() < 0.3, self.random.random() < 0.2
        signature = self.random.choice(SIGNATURES)
        names = tuple(re.findall(r"(?:^|, )\**(\w+)", signature))
        whole = ", ".join(filter(None, [first, signature]))
        body = "yield 1" if is_generator else "return 'def not_a_flow'"
        return f"{'async ' * is_async}def {name}({whole}):\n    {body}\n", is_async, names

    def _in_something(self, block: Block) -> Block:
        for _ in range(self.random.choice([0, 0, 0, 1, 2])):
            before, after = self.random.choice(
                [
                    ("if os.environ:", ""),
                    ("if not os.environ:\n    pass\nelse:", ""),
                    ("if os.name == 'no-such':\n    pass\nelif True:", "else:\n    pass"),
                    ("try:", "except ImportError:\n    pass"),
                    ("try:\n    pass\nfinally:", ""),
                    ("try:\n    import no_such_module\nexcept ImportError:", ""),
                    ("with contextlib.suppress(ValueError):", ""),
                    ("for _ in range(1):", "else:\n    pass"),
                    ("while True:", "    break"),
                    ("match os.name:\n  case _:", ""),
                ]
            )
            block = block.wrapped(before, after)
        return block

    # Kinds of blocks

    def make_decorated(self) -> Block:
        imports, spelling = self.spelling()
        name = self.fresh("decorated")
        written, known = self.random.choice([("", hyphens(name)), ("()", hyphens(name)), (None, None)])
        if written is None:
            inside, known = self.options(hyphens(name))
            written = f"({inside})"
        definition, is_async, parameters = self.function(name)
        return Block(
            f"@{spelling}{written}\n{definition}",
            (imports,),
            (Expected(name, known, definition.partition("(")[0] + "(", is_async, parameters),),
        )

    def make_called(self) -> Block:
        imports, spelling = self.spelling()
        inner, name = self.fresh("plain"), self.fresh("called")
        inside, known = self.options(hyphens(inner))
        definition, is_async, parameters = self.function(inner)
        call = self.random.choice([f"{spelling}({inside})({inner})", f"{spelling}({inner}, {inside})"])
        if self.random.random() < 0.3:
            call, known = f"{spelling}({inner})", hyphens(inner)
        return Block(
            f"{definition}{name} = {call}\n", (imports,), (Expected(name, known, f"{name} =", is_async, parameters),)
        )

    def make_lambda(self) -> Block:
        imports, spelling = self.spelling()
        name = self.fresh("short")
        inside, known = self.options("unknown-lambda")
        call = f"{spelling}({inside})(lambda x, y=2: x)"
        return Block(f"{name} = {call}\n", (imports,), (Expected(name, known, f"{name} =", False, ("x", "y")),))

    def make_with_options(self) -> Block:
        block = self.make_decorated()
        (base,) = block.flows
        name = self.fresh("again")
        inside, known = self.options(base.name or "")
        if inside in ("retries=1", "name=None, description='It.'", "name=''"):
            known = base.name
        chain = self.random.choice([f".with_options({inside})", f".with_options(retries=2).with_options({inside})"])
        made = replace(base, binding=name, name=known, mark=f"{name} =")
        return replace(block, source=f"{block.source}{name} = {base.binding}{chain}\n", flows=(base, made))

    def make_alias(self) -> Block:
        imports, spelling = self.spelling()
        alias, name = self.fresh("alias"), self.fresh("aliased")
        made_by = self.random.choice(
            [spelling, f"functools.partial({spelling}, retries=3)", f"{spelling}(retries=3)", f"{spelling} or None"]
        )
        definition, is_async, parameters = self.function(name)
        return Block(
            f"{alias} = {made_by}\n@{alias}\n{definition}second_{name} = {name}\n",
            (imports,),
            (Expected(name, hyphens(name), definition.partition("(")[0] + "(", is_async, parameters),),
        )

    def make_class(self) -> Block:
        imports, spelling = self.spelling()
        holder = self.fresh("Holder")
        source, flows = [f"class {holder}:\n    kind = 'flow'\n"], []
        for decorator, first in (("", "self"), ("@staticmethod\n", ""), ("@classmethod\n", "cls")):
            method = self.fresh("method")
            inside, known = self.options(hyphens(method))
            definition, is_async, parameters = self.function(method, first)
            source.append(indent(f"{decorator}@{spelling}({inside})\n{definition}", "    "))
            mark = definition.partition("(")[0] + "("
            flows.append(Expected(f"{holder}.{method}", known, mark, is_async, parameters))
        return Block("".join(source), (imports,), tuple(flows))

    def make_stacked(self) -> Block:
        imports, spelling = self.spelling()
        name = self.fresh("stacked")
        definition, _, parameters = self.function(name)
        definition = definition.removeprefix("async ")  # `timed` hides it
        inside, known = self.options(hyphens(name))
        return Block(
            f"@{spelling}({inside})\n@timed\n{definition}",
            (imports, "from lib.decorators import timed"),
            (Expected(name, known, f"def {name}(", False, parameters),),
        )

    def make_local_factory(self) -> Block:
        imports, spelling = self.spelling()
        factory, name = self.fresh("factory"), self.fresh("made")
        label = self.fresh("label")
        definition, is_async, parameters = self.function("inner")
        source = (
            f"def {factory}(label, *, suffix='s'):\n"
            f"    text = label + '-' + suffix\n"
            f"    @{spelling}(name=f'{{text}}-{{PREFIX}}')\n{indent(definition, '    ')}    return inner\n"
        )
        call, known = self.random.choice(
            [
                (f"'{label}'", f"{label}-s-acme"),
                (f"'{label}', suffix='t'", f"{label}-t-acme"),
                (f"label='{label}', suffix=REGION", f"{label}-eu-acme"),
                (f"**{{'label': '{label}'}}", f"{label}-s-acme"),
                (f"f'{label}-{{PREFIX}}'", f"{label}-acme-s-acme"),
                (f"os.environ.get('NO_SUCH_VARIABLE', '{label}')", None),
            ]
        )
        made = Expected(name, known, f"{name} =", is_async, parameters)
        return Block(f"{source}{name} = {factory}({call})\n", (imports,), (made,))

    def make_imported_factory(self) -> Block:
        name, label = self.fresh("built"), self.fresh("label")
        spelling = self.random.choice(["build", "factories.build"])
        call, known = self.random.choice(
            [
                (f"'{label}'", f"eu-{label}-orders-full"),
                (f"'{label}', 'parts'", f"eu-{label}-parts-full"),
                (f"'{label}', suffix='part', table=PREFIX", f"eu-{label}-acme-part"),
                (f"*['{label}']", None),
            ]
        )
        imports = ("from lib.factories import build", "from lib import factories")
        made = Expected(name, known, f"{name} =", False, ("day", "size"))
        return Block(f"{name} = {spelling}({call})\n", imports, (made,))

    def make_decoy(self) -> Block:
        imports, spelling = self.spelling()
        name = self.fresh("decoy")
        return self.random.choice(
            [
                Block(f"def {name}():\n    @{spelling}\n    def inner(): ...\n    return 1\n", (imports,)),
                Block(f"{name} = '''\nfrom prefect import flow\n@flow\ndef inner(): ...\n'''\n", (imports,)),
                Block(f"@{spelling}\ndef {name}(): ...\ndel {name}\n", (imports,)),
                Block(f"@{spelling}\ndef {name}(): ...\n{name} = None\n", (imports,)),
                Block(f"{name} = {{'a': {spelling}(print)}}\n", (imports,)),
                Block(f"{name} = {spelling}\n", (imports,)),
                Block(f"def {name}():\n    return {spelling}(print)\n", (imports,)),
                Block(f"{name} = shared\n", ("from lib.elsewhere import shared",)),
                Block(f"# @flow\n{name} = 'flow'\n", ("from lib.elsewhere import *",)),
                Block(f"class {name}:\n    flow = 'a'\n    def flows(self): ...\n"),
                Block(f"if __name__ == '__main__':\n    {name} = {spelling}(print)\n", (imports,)),
            ]
        )


def hyphens(name: str) -> str:
    return name.replace("_", "-")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the modules that the generated ones take from."""
    return write_files(tmp_path_factory.mktemp("generated"), LIBRARY)


def flows_in(root: Path, content: str | bytes, name: str = "flows/it.py") -> dict[str, FlowMetadata]:
    """The flows of one file of the repository, by what they are bound to."""
    path = root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = discover(root, ["flows"], paths=[name])
    assert found.problems == ()
    return {flow.function_name: flow for flow in found.flows}


def said(flow: FlowMetadata) -> tuple[str | None, bool, tuple[str, ...]]:
    return flow.name if flow.name_is_static else None, flow.is_async, tuple(each.name for each in flow.parameters)


def essence(flows: dict[str, FlowMetadata]) -> dict[str, Any]:
    """All that is known of flows but their lines and what depends on the bytes of the file."""
    return {
        name: replace(flow, line_number=0, end_line_number=0, closure_digest="", deployment_calls=(), option_places={})
        for name, flow in flows.items()
    }


randoms = st.randoms(use_true_random=False)


class TestGeneratedModules:
    @settings(max_examples=200, deadline=None)
    @given(random=randoms, local_flow=st.booleans())
    def test_all_flows_are_found_and_nothing_else(self, root: Path, random: Random, local_flow: bool) -> None:
        generator = Generator(random, local_flow=local_flow)
        blocks = generator.blocks()
        source = generator.module(blocks)
        found = flows_in(root, source)
        expected = {flow.binding: flow for block in blocks for flow in block.flows}
        assert {name: said(flow) for name, flow in found.items()} == {
            name: (flow.name, flow.is_async, flow.parameters) for name, flow in expected.items()
        }, source
        lines = source.split("\n")
        for name, flow in found.items():
            first = lines[flow.line_number - 1].strip()
            assert first.startswith(expected[name].mark), (first, expected[name])
            assert flow.line_number <= flow.end_line_number <= len(lines)

    @settings(max_examples=60, deadline=None)
    @given(random=randoms, data=st.data())
    def test_the_order_of_statements_that_stand_alone_does_not_matter(
        self, root: Path, random: Random, data: st.DataObject
    ) -> None:
        generator = Generator(random)
        blocks = generator.blocks()
        shuffled = data.draw(st.permutations(blocks))
        assert essence(flows_in(root, generator.module(blocks))) == essence(flows_in(root, generator.module(shuffled)))

    @settings(max_examples=60, deadline=None)
    @given(random=randoms, data=st.data())
    def test_comments_blank_lines_and_line_ends_change_nothing_but_lines(
        self, root: Path, random: Random, data: st.DataObject
    ) -> None:
        generator = Generator(random)
        source = generator.module(generator.blocks())
        before = flows_in(root, source)
        lines = source.split("\n")
        is_free = "'''" not in source  # a comment within a text is none
        for _ in range(data.draw(st.integers(0, 5)) if is_free else 0):
            place = data.draw(st.integers(0, len(lines)))
            lines.insert(place, data.draw(st.sampled_from(["", "# @flow", "    # def f(): ...", "\f", "   ", "\t# é"])))
        changed = "\n".join(lines)
        content = changed.replace("\n", data.draw(st.sampled_from(["\n", "\r\n"] + ["\r"] * is_free))).encode()
        content = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"# -*- coding: utf-8 -*-\n"])) + content
        after = flows_in(root, content)
        assert essence(after) == essence(before)
        text = re.split(r"\r\n|\r|\n", content.decode())
        for name, flow in before.items():
            assert text[after[name].line_number - 1].strip() == source.split("\n")[flow.line_number - 1].strip()

    @settings(max_examples=60, deadline=None)
    @given(random=randoms, data=st.data())
    def test_other_names_for_what_is_imported_change_nothing(
        self, root: Path, random: Random, data: st.DataObject
    ) -> None:
        generator = Generator(random)
        source = generator.module(generator.blocks())
        renamed = source
        for alias in ("alias_a", "alias_b", "alias_c", "alias_d", "pf", "decorators", "of_flows"):
            new = data.draw(st.sampled_from([f"zz_{alias}", f"ｘ_{alias}", f"_{alias}", f"été_{alias}"]))
            renamed = re.sub(rf"\b{alias}\b(?= |\(|\.|\n|,|\))(?! import)", new, renamed)
        renamed = renamed.replace("import lib.zz_decorators", "import lib.decorators")
        renamed = re.sub(r"\blib\.(?:zz_|ｘ_|_|été_)decorators\b", "lib.decorators", renamed)
        assert essence(flows_in(root, renamed)) == essence(flows_in(root, source)), renamed

    def test_the_expectations_are_what_importing_gives(self, tmp_path: Path) -> None:
        write_files(tmp_path, LIBRARY)
        (tmp_path / "flows").mkdir()
        expected: dict[str, Expected] = {}
        for number in range(60):
            generator = Generator(Random(number), local_flow=number % 4 == 0)
            blocks = generator.blocks()
            path = f"flows/m{number}.py"
            (tmp_path / path).write_text(generator.module(blocks))
            expected |= {f"{path}:{flow.binding}": flow for block in blocks for flow in block.flows}
        truth = imported(tmp_path, [f"flows/m{number}.py" for number in range(60)])
        assert truth.keys() == expected.keys()
        for entrypoint, flow in expected.items():
            there = truth[entrypoint]
            assert flow.name in (None, there["name"]), (entrypoint, flow, there)
            assert (flow.is_async, list(flow.parameters)) == (there["is_async"], there["parameters"]), entrypoint


def imported(root: Path, files: list[str]) -> dict[str, dict[str, Any]]:
    """What importing the files with Prefect gives, by entrypoint."""
    child = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("import_truth.py"))],
        input=json.dumps([[str(root), files]]),
        env={**os.environ, "PREFECT_HOME": str(root / ".prefect")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    found: dict[str, dict[str, Any]] = {}
    for _, file, answer in json.loads(child.stdout.splitlines()[-1]):
        assert "error" not in answer, (file, answer, (root / file).read_text())
        found |= answer["flows"]
    return found


# ---------------------------------------------------------------------------------------------------------
# What is read together
# ---------------------------------------------------------------------------------------------------------

CIRCULAR = ("a", "b", "c", "d")
FROM_ANOTHER = (
    *("import {0}", "from {0} import job", "from {0} import *", "from {0} import NAME", "import {0}\njob = {0}.job"),
    *("@{0}.job\ndef f1(): ...", "import {0}\n@{0}.deco\ndef f2(): ...", "from {0} import deco\n@deco\ndef f3(): ..."),
    *("from prefect import flow\nimport {0}\n@flow(name={0}.NAME)\ndef f4(): ...", "NAME = {0}.NAME"),
    "import {0}\nf5 = {0}.deco({0}.job)",
)
OF_ITS_OWN = (
    *("from prefect import flow\njob = flow", "def deco(fn): return fn", "@job\ndef g1(): ...", "NAME = 'own'"),
    *("from prefect import flow\ndef deco(fn): return flow(fn)", "@job(name=NAME)\ndef g2(): ..."),
    "def deco(fn):\n    @job(name=NAME)\n    def inner(): ...\n    return inner",
)


@st.composite
def circular_module(draw: st.DrawFn) -> str:
    """A module that takes from others of CIRCULAR, in whatever order, and these from it."""
    own = st.sampled_from(OF_ITS_OWN)
    others = st.builds(str.format, st.sampled_from(FROM_ANOTHER), st.sampled_from(CIRCULAR))
    return "\n".join([*draw(st.lists(own | others, max_size=5)), ""])


class TestReadTogether:
    @settings(max_examples=300, deadline=None)
    @given(modules=st.fixed_dictionaries({name: circular_module() for name in CIRCULAR}))
    def test_what_a_file_holds_does_not_depend_on_what_was_read_before(
        self, tmp_path_factory: pytest.TempPathFactory, modules: dict[str, str]
    ) -> None:
        """Else a scan that remembers some files would say something else than one that reads them all."""
        root = tmp_path_factory.getbasetemp() / "circular"
        root.mkdir(exist_ok=True)
        for name, source in modules.items():
            (root / f"{name}.py").write_text(source)
        together = discover(root, ["."]).flows
        for name in CIRCULAR:
            alone = discover(root, ["."], paths=[f"{name}.py"]).flows
            assert tuple(flow for flow in together if flow.path == f"{name}.py") == alone, modules

    def test_a_maker_behind_a_circle_of_imports(self, tmp_path: Path) -> None:
        users = [f"b{number}" for number in range(40)]
        files = {f"{name}.py": "import a\n@a.job\ndef fb(): ...\n" for name in users}
        write_files(tmp_path, {**files, "lib.py": "from prefect import flow as job\n"})
        (tmp_path / "a.py").write_text("".join(f"import {name}\n" for name in users) + "from lib import job\n")
        assert {flow.module_path for flow in discover(tmp_path, ["."]).flows} == {*users}

    def test_a_long_chain_of_imports(self, tmp_path: Path) -> None:
        files = {f"m{number}.py": f"from m{number + 1} import job\n" for number in range(600)}
        assert discover(write_files(tmp_path, files), ["."]).flows == ()

    @pytest.mark.parametrize(
        "source",
        [
            "x = 1; from lib.decorators import job\n@job",
            "from os import path; from lib.decorators import job\n@job",
            "try: from lib.decorators import job\nexcept ImportError: pass\n@job",
            "from lib.decorators \\\n    import job\n@job",
            "\ffrom lib.decorators import job\n@job",
            "x = 1\rfrom lib.decorators import job\r@job",
            "from größen import job\n@job",
            "import prefect\n@prefect.ｆｌｏｗ",
        ],
    )
    def test_a_file_without_the_word_flow(self, tmp_path: Path, source: str) -> None:
        write_files(tmp_path, {**LIBRARY, "größen.py": "from prefect import flow as job\n"})
        assert list(flows_in(tmp_path, f"{source}\ndef etl(): ...\n", "it/etl.py")) == ["etl"]

    def test_with_helpers_and_without(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        write_files(tmp_path, LIBRARY)
        (tmp_path / "flows").mkdir()
        for number in range(40):
            generator = Generator(Random(number))
            (tmp_path / f"flows/m{number}.py").write_text(generator.module(generator.blocks()))
        alone = discover(tmp_path, ["."])
        monkeypatch.setattr(scanning, "FILES_THAT_PAY", 5)
        monkeypatch.setattr(scanning, "_processors", lambda: 3)
        assert discover(tmp_path, ["."]) == alone
        assert len(alone.flows) > 40


# ---------------------------------------------------------------------------------------------------------
# A cache never lies
# ---------------------------------------------------------------------------------------------------------

PLACES = (
    *("flows/a.py", "flows/b.py", "flows/sub/c.py", "flows/names.py", "flows/lib/deco.py", "flows/lib/__init__.py"),
    *(
        "lib/__init__.py",
        "lib/deco.py",
        "lib/names.py",
        "lib/deco/__init__.py",
        "src/lib/deco.py",
        "names.py",
        "deco.py",
    ),
)
IMPORTS = (
    *(
        "from prefect import flow",
        "import prefect",
        "from lib.deco import job",
        "from lib import job",
        "import lib.deco",
    ),
    *("from lib import deco", "from lib import deco, names", "from lib.names import *", "from names import NAME"),
    *(
        "from .names import NAME",
        "from . import names",
        "from .deco import *",
        "from a import job",
        "from b import job",
    ),
    *("import a", "from flows.a import fa", "import flows.b as b", "from lib.deco import make", "from sub.c import *"),
    *("try:\n    from deco import job\nexcept ImportError:\n    job = None", "x = 1; from lib.deco import job as job"),
)
STATEMENTS = (
    *("job = flow", "job = prefect.flow", "NAME = 'one'", "NAME = 'two'", "NAME = names.NAME", "__all__ = ['job']"),
    *(
        "job = deco.job",
        "job = lib.deco.job",
        "from prefect import flow as job",
        "def make(n): return flow(name=n)(len)",
    ),
    *("@job\ndef fa(x): ...", "@flow\ndef fb(y=1): ...", "@deco.job\ndef fc(): ...", "@job(name=NAME)\ndef fd(z): ..."),
    *("@lib.deco.job\nasync def fe(): ...", "@a.job\ndef ff(): ...", "fg = make('made')", "fh = make(NAME)"),
    *("fi = fa.with_options(name=NAME)", "@flow(name=f'n-{NAME}')\ndef fj(): ...", "broken(", "import requests"),
)


@st.composite
def any_module(draw: st.DrawFn) -> str:
    """A module that may take from others, give to others, and make flows; or be broken."""
    imports = draw(st.lists(st.sampled_from(IMPORTS), max_size=3, unique=True))
    return "\n".join([*imports, *draw(st.lists(st.sampled_from(STATEMENTS), max_size=4)), ""])


class Clock:
    """The time as the cache sees it: people edit files seconds after a scan, tests do not wait for seconds."""

    def __init__(self) -> None:
        self.ahead = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead


class EditedRepository(RuleBasedStateMachine):
    """A repository that is edited between scans, in whatever way: a scan with a cache says what one without says."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.root = Path(self._folder.name)
        self.cache = self.root / ".orchestrator" / "cache" / "scan.cache"
        self.clock = Clock()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(scan_cache, "time", self.clock)
        (self.root / "flows").mkdir()

    def teardown(self) -> None:
        self._patch.undo()
        self._folder.cleanup()

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*.py") if path.is_file())

    @initialize(modules=st.dictionaries(st.sampled_from(PLACES), any_module(), min_size=4))
    def begin(self, modules: dict[str, str]) -> None:
        for place, source in modules.items():
            self.write(place, source)

    @rule(place=st.sampled_from(PLACES), source=any_module())
    def write(self, place: str, source: str) -> None:
        path = self.root / place
        if path.parent.is_file() or path.is_dir():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        rewrite(path, source.encode())

    @rule(data=st.data(), keeps_times=st.booleans())
    def edit_in_place(self, data: st.DataObject, keeps_times: bool) -> None:
        """As many bytes as before, the same inode and, where asked for, the old time of the last write."""
        if path := self.some_file(data):
            old, times = path.read_bytes(), path.stat()
            swaps = [
                (b"one", b"two"),
                (b"two", b"one"),
                (b"job", b"jab"),
                (b"jab", b"job"),
                (b"flow", b"flaw"),
                (b"fa", b"fz"),
            ]
            new = old.replace(*data.draw(st.sampled_from(swaps)))
            if new != old:
                rewrite(path, new)
                if keeps_times:
                    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if path := self.some_file(data):
            path.unlink()

    @rule(data=st.data())
    def delete_folder(self, data: st.DataObject) -> None:
        folders = [path for path in sorted(self.root.iterdir()) if path.name in ("lib", "src")]
        if folders:
            shutil.rmtree(data.draw(st.sampled_from(folders)))

    @rule(data=st.data(), place=st.sampled_from(PLACES))
    def rename(self, data: st.DataObject, place: str) -> None:
        path, target = self.some_file(data), self.root / place
        if path and not target.is_dir() and not target.parent.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)

    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        one, other = self.some_file(data), self.some_file(data)
        if one and other and one != other:
            one.rename(self.root / "between")
            other.rename(one)
            (self.root / "between").rename(other)

    @rule(data=st.data(), when=st.sampled_from([0, 1, 10**9, 4 * 10**18]))
    def touch(self, data: st.DataObject, when: int) -> None:
        if path := self.some_file(data):
            os.utime(path, ns=(when, when))

    @rule(data=st.data(), place=st.sampled_from(PLACES))
    def link(self, data: st.DataObject, place: str) -> None:
        path, target = self.some_file(data), self.root / place
        if path and not target.exists() and target.parent.is_dir() and not target.is_symlink():
            target.symlink_to(path)

    @rule()
    def pass_time(self) -> None:
        """Ten seconds: what was written before them is trusted from its times from now on."""
        self.clock.ahead += 10 * 10**9

    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        if not self.cache.is_file():
            return
        content = self.cache.read_bytes()
        here = data.draw(st.integers(0, len(content)))
        kinds = [
            content[:here],
            b"",
            b"{}\n{}",
            content[:here] + b"\xff" + content[here + 1 :],
            content + b" ",
            b"\0" * 99,
        ]
        self.cache.write_bytes(data.draw(st.sampled_from(kinds)))

    @rule()
    def put_a_folder_in_the_way(self) -> None:
        if self.cache.is_dir():
            self.cache.rmdir()
        elif self.cache.is_file():
            self.cache.unlink()
            self.cache.mkdir()

    @rule()
    def put_a_file_in_the_way(self) -> None:
        folder = self.root / ".orchestrator"
        if folder.is_file():
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.write_text("")

    @rule(data=st.data(), places=st.sets(st.sampled_from(["flows", "lib", "flows/a.py", "flows/sub"]), min_size=1))
    def scan_a_part(self, data: st.DataObject, places: set[str]) -> None:
        """What a scan of something else has noted is no lie either."""
        existing = sorted(place for place in places if (self.root / place).exists())
        self.compare(existing)

    @rule()
    def scan_with_helpers(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scanning, "FILES_THAT_PAY", 1)
            patch.setattr(scanning, "_processors", lambda: 2)
            self.compare(["."])

    @invariant()
    def a_scan_with_a_cache_says_the_same(self) -> None:
        self.compare(["."])

    def compare(self, places: list[str]) -> None:
        fresh = discover(self.root, places)
        assert discover(self.root, places, cache_file=self.cache) == fresh
        assert discover(self.root, places, cache_file=self.cache) == fresh

    def some_file(self, data: st.DataObject) -> Path | None:
        files = self.files()
        return data.draw(st.sampled_from(files)) if files else None


def rewrite(path: Path, content: bytes) -> None:
    """Write into the same file, if there is one, at a time that its file system tells from the last one."""
    before = path.stat().st_ctime_ns if path.exists() else None
    path.write_bytes(content)
    while path.stat().st_ctime_ns == before:
        path.write_bytes(content)


TestEditedRepository = EditedRepository.TestCase
TestEditedRepository.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
