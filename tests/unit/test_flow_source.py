"""Flows that take their making from elsewhere: other modules, factories, decorators of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.closure import ImportGraph
from orchestrator.flow_source import FlowReader, SourceFlow
from orchestrator.flow_values import Doubt
from orchestrator.sources import SourceFiles
from tests.unit.builders import write_files

DECORATORS = """
    import functools
    from functools import partial
    import prefect
    from prefect import flow as _flow
    PREFIX = "acme"
    class Names:
        DAILY = "daily"
    flow = prefect.flow
    job = partial(_flow, retries=2, tags=["acme"])
    def with_defaults(fn=None, **options):
        if fn is None:
            return partial(with_defaults, **options)
        return _flow(retries=3, **options)(fn)
    def named(name, *, suffix="x"):
        def decorate(fn):
            @_flow(name=f"{PREFIX}-{name}-{suffix}")
            @functools.wraps(fn)
            def wrapper(*args, **kwargs):
                return fn(*args, **kwargs)
            return wrapper
        return decorate
    def logged(fn):
        def inner(*args):
            return fn(*args)
        return inner
    @_flow
    def shared(day: str): ...
"""
FACTORIES = """
    from prefect import flow
    def make_flow(name, cron=None, *, table="t"):
        label = name or "unnamed"
        @flow(name=f"load-{label}-{table}", description=cron)
        def load(day: str, size: int = 3):
            "Load it."
        return load
    def via(name):
        return make_flow(name.replace("_", "-"), table="via")
    def choose(kind):
        if kind == "a":
            return flow(name="a")(lambda: 1)
        return flow(name="b")(lambda: 2)
    def helper(name):
        return name.upper()
"""


def flows_of(root: Path, source: str, path: str = "flows/it.py") -> dict[str, SourceFlow]:
    """The flows of one file of a repository that has the modules above, by what they are bound to."""
    write_files(
        root,
        {
            path: source,
            "mylib/__init__.py": "from .decorators import job as exported\nfrom . import decorators as deco\n",
            "mylib/decorators.py": DECORATORS,
            "mylib/factories.py": FACTORIES,
            "mylib/chain.py": "from mylib.decorators import *\nfrom mylib.factories import make_flow as make\n",
        },
    )
    sources = SourceFiles(root)
    found = FlowReader(sources, ImportGraph(sources)).flows_of(path)
    return {flow.function_name: flow for flow in found}


def one(root: Path, source: str) -> SourceFlow:
    (flow,) = flows_of(root, source).values()
    return flow


class TestDecoratorsOfTheRepository:
    @pytest.mark.parametrize(
        ("imports", "decorator"),
        [
            ("from mylib.decorators import flow", "flow"),
            ("from mylib.decorators import flow as f", "f()"),
            ("import mylib.decorators as d", "d.flow"),
            ("import mylib.decorators", "mylib.decorators.flow"),
            ("from mylib import decorators", "decorators.flow(retries=1)"),
            ("from mylib import deco", "deco.flow"),
            ("from mylib import exported", "exported"),
            ("from mylib.chain import flow", "flow"),
            ("from mylib.decorators import *", "job"),
            ("from mylib.decorators import job", "job"),
            ("from mylib.decorators import job", "job(name='x')"),
            ("from mylib.decorators import with_defaults", "with_defaults"),
            ("from mylib.decorators import with_defaults", "with_defaults()"),
            ("from mylib.decorators import with_defaults", "with_defaults(timeout_seconds=3)"),
            ("from ..mylib.decorators import job", "job"),
            ("import prefect\nours = prefect.flow", "ours"),
            ("from prefect import flow as f\nfrom functools import partial\nours = partial(f, retries=2)", "ours"),
            ("import functools, prefect\nours = functools.partial(prefect.flow, retries=2)", "ours(name='y')"),
        ],
    )
    def test_make_flows(self, tmp_path: Path, imports: str, decorator: str) -> None:
        flow = one(tmp_path, f"{imports}\n@{decorator}\ndef etl(day: str): ...\n")
        assert (flow.function_name, [parameter.name for parameter in flow.parameters]) == ("etl", ["day"])
        assert flow.name_is_static and flow.signature_is_static
        assert flow.line_number == len(imports.splitlines()) + 2

    def test_give_their_arguments(self, tmp_path: Path) -> None:
        flow = one(tmp_path, "from mylib.decorators import job\n@job(name='mine')\ndef etl(): ...\n")
        assert (flow.name, flow.retries, flow.tags) == ("mine", 2, ("acme",))

    def test_that_may_be_called_with_or_without_brackets(self, tmp_path: Path) -> None:
        source = "from mylib.decorators import with_defaults as d\n@d\ndef a(): ...\n@d(name='bee')\ndef b(): ...\n"
        flows = flows_of(tmp_path, source)
        assert {name: (flow.name, flow.retries) for name, flow in flows.items()} == {"a": ("a", 3), "b": ("bee", 3)}

    def test_that_wrap_keep_the_signature(self, tmp_path: Path) -> None:
        source = "from mylib.decorators import named\n@named('load', suffix='y')\ndef etl(day: str):\n    'Doc.'\n"
        flow = one(tmp_path, source)
        assert (flow.name, flow.description) == ("acme-load-y", "Doc.")
        assert [parameter.name for parameter in flow.parameters] == ["day"]
        assert (flow.line_number, flow.end_line_number) == (3, 4)

    def test_that_hide_a_flow_leave_none(self, tmp_path: Path) -> None:
        source = "from prefect import flow\nfrom mylib.decorators import logged\n@logged\n@flow\ndef a(): ...\n"
        assert flows_of(tmp_path, source) == {}

    def test_below_a_flow_change_nothing_but_the_function(self, tmp_path: Path) -> None:
        source = "from prefect import flow\nfrom elsewhere import timed\n@flow\n@timed\ndef a(x): ...\n"
        assert one(tmp_path, source).name == "a"


class TestFactories:
    @pytest.mark.parametrize(
        ("call", "name"),
        [
            ("make_flow('daily')", "load-daily-t"),
            ("make_flow('daily', cron='0 1 * * *')", "load-daily-t"),
            ("make_flow(name='daily', table='u')", "load-daily-u"),
            ("make_flow(None)", "load-unnamed-t"),
            ("make_flow(f'{REGION}-orders')", "load-eu-orders-t"),
            ("via('big_orders')", "load-big-orders-via"),
            ("make_flow(*['x'])", None),
            ("make_flow(unknown())", None),
            ("choose('a')", "a"),
            ("choose('z')", "b"),
            ("choose(unknown())", None),
            ("make_flow(helper('low'))", "load-LOW-t"),
        ],
    )
    def test_name_comes_from_the_call(self, tmp_path: Path, call: str, name: str | None) -> None:
        source = f"from mylib.factories import *\nREGION = 'eu'\n\ndaily = {call}\n"
        flow = one(tmp_path, source)
        assert (flow.function_name, flow.line_number) == ("daily", 4)
        assert flow.name_is_static is (name is not None)
        if name is not None:
            assert flow.name == name

    def test_signature_is_that_of_the_inner_function(self, tmp_path: Path) -> None:
        flow = one(tmp_path, "from mylib.chain import make\ndaily = make('d', '0 1 * * *')\n")
        assert [parameter.name for parameter in flow.parameters] == ["day", "size"]
        assert flow.description == "0 1 * * *"

    def test_several_at_once(self, tmp_path: Path) -> None:
        source = "from mylib.factories import make_flow as m\na, b = m('a'), m('b')\n[c] = [m('c')]\n"
        assert {name: flow.name for name, flow in flows_of(tmp_path, source).items()} == {
            "a": "load-a-t",
            "b": "load-b-t",
            "c": "load-c-t",
        }

    @pytest.mark.parametrize(
        "source",
        [
            "from mylib.factories import make_flow",
            "from mylib.factories import make_flow\nmake_flow('lost')",
            "from mylib.factories import make_flow\nFLOWS = {'a': make_flow('a')}",
            "from mylib.factories import helper\nx = helper('flow')",
            "from prefect import flow\ndef outer():\n    @flow\n    def inner(): ...\n    return inner",
            "from prefect import flow\ndef outer():\n    @flow\n    def inner(): ...\nx = outer()",
            "from prefect import flow\nasync def outer():\n    return flow(print)\nx = outer()",
            "from prefect import flow\ndef outer():\n    yield flow(print)\nx = outer()",
            "def flow(fn): return fn\n@flow\ndef a(): ...",
            "from mylib.decorators import shared",
            "from mylib import decorators\nshared = decorators.shared",
            "TEXT = '''\nfrom prefect import flow\n@flow\ndef a(): ...\n'''",
        ],
    )
    def test_nothing_at_module_level_is_no_flow(self, tmp_path: Path, source: str) -> None:
        assert flows_of(tmp_path, source) == {}

    @pytest.mark.parametrize(
        "source",
        [
            "def f(): return f()\nx = f()",
            "def f(n): return f(n) or f(n) or f(n)\nx = f(1)",
            "def f(): return g(), g()\ndef g(): return f(), f()\nx = f()",
            "f = lambda: (f(), f(), f())\nx = f()",
            "a = 'x' * 10\n" + "a = a + a\n" * 60,
            "a = 'x'\n" + "a = a.replace('x', 'xxxxxxxxxx')\n" * 60,
            "from flows.it import x as y\nx = y",
            "x = (" + "a or (" * 80 + "b" + ")" * 81,
            "x = " + "f(" * 80 + ")" * 80,
            "x = " + "a.b(1)" + ".c(2)" * 500,
        ],
    )
    def test_circles_and_bombs_end(self, tmp_path: Path, source: str) -> None:
        flows = flows_of(tmp_path, f"from prefect import flow\n@flow\ndef fine(): ...\n{source}\n")
        assert set(flows) == {"fine"}


class TestOtherModules:
    @pytest.mark.parametrize(
        ("expression", "name"),
        [
            ("d.PREFIX", "acme"),
            ("f'{d.PREFIX}-etl'", "acme-etl"),
            ("d.Names.DAILY", "daily"),
            ("d.PREFIX + '-x'", "acme-x"),
            ("d.PREFIX.upper()", "ACME"),
            ("d.MISSING", None),
            ("elsewhere.NAME", None),
        ],
    )
    def test_constants(self, tmp_path: Path, expression: str, name: str | None) -> None:
        source = f"import elsewhere\nfrom mylib import decorators as d\n@d.flow(name={expression})\ndef etl(): ...\n"
        flow = one(tmp_path, source)
        assert (flow.name, flow.name_is_static) == (name or "etl", name is not None)

    def test_with_options_of_an_imported_flow(self, tmp_path: Path) -> None:
        source = "from mylib.decorators import shared\nmine = shared.with_options(name='mine')\n"
        flow = one(tmp_path, source)
        assert (flow.function_name, flow.name, flow.line_number) == ("mine", "mine", 2)
        assert [parameter.name for parameter in flow.parameters] == ["day"]

    def test_function_of_another_module(self, tmp_path: Path) -> None:
        write_files(tmp_path, {"mylib/work.py": "def crunch(day: str, n=1): 'Crunch.'\n"})
        flow = one(tmp_path, "from prefect import flow\nfrom mylib.work import crunch\nit = flow(crunch)\n")
        assert (flow.name, flow.description, len(flow.parameters)) == ("crunch", "Crunch.", 2)
        assert flow.name_is_static and flow.signature_is_static

    def test_a_module_says_the_same_to_who_asks_deep_in_calls(self, tmp_path: Path) -> None:
        steps = [f"def step{number}(): return step{number + 1}()" for number in range(1, 10)]
        library = ["from prefect import flow", *steps, "def step10(): return flow(name='deep')(len)", "made = step1()"]
        write_files(tmp_path, {"mylib/deep.py": "\n".join(library)})
        source = [*steps, "def step10(): return made", "mine = step1()"]
        flow = one(tmp_path, "\n".join(["from mylib.deep import made", *source]))
        assert (flow.function_name, flow.name) == ("mine", "deep")

    def test_modules_that_import_one_another(self, tmp_path: Path) -> None:
        write_files(
            tmp_path,
            {
                "mylib/one.py": "from prefect import flow\nfrom mylib.two import late\n@flow\ndef early(): ...\n",
                "mylib/two.py": "from mylib.one import flow\n@flow\ndef late(): ...\n",
            },
        )
        assert set(flows_of(tmp_path, "from mylib.two import flow\n@flow\ndef etl(): ...\n")) == {"etl"}


class TestWhatFailsOnImport:
    @pytest.mark.parametrize(
        ("source", "doubts"),
        [
            ("@shopflow('a')\ndef a(): ...", [("undefined", "shopflow", 2)]),
            ("class A:\n    @shopflow.x(1)\n    def a(self): ...", [("undefined", "shopflow", 3)]),
            ("@flow('weekly')\ndef a(): ...", [("no-function", "'weekly'", 2)]),
            ("x = make_flwo('x')", [("undefined", "make_flwo", 2)]),
            ("x = flow(name=names.of('x'))(print)", [("undefined", "names", 2)]),
            ("x = flow(3)", [("no-function", "3", 2)]),
            ("from prefect import flwo as fl\n@fl\ndef a(): ...", [("not-in-prefect", "flwo", 2)]),
            ("from prefect.flows import floww\n@floww\ndef a(): ...", [("not-in-prefect", "floww", 2)]),
            ("raise OSError(1)\n@flow\ndef a(): ...", [("raises", "raise OSError(1)", 2)]),
            ("if x:\n    raise A\nelse:\n    raise B\n@flow\ndef a(): ...", [("raises", "raise", 2)]),
        ],
    )
    def test_is_noted(self, tmp_path: Path, source: str, doubts: list[tuple[str, str, int]]) -> None:
        found = doubts_of(tmp_path, source)
        assert [(each.kind, each.name, each.line_number) for each in found] == doubts

    @pytest.mark.parametrize(
        "source",
        [
            "from elsewhere import *\n@unknown\ndef a(): ...",
            "globals()['deco'] = flow\n@deco\ndef a(): ...",
            "match flow:\n    case deco: pass\n@deco\ndef a(): ...",
            "print(deco := flow)\n@deco\ndef a(): ...",
            "for deco in [flow]:\n    @deco\n    def a(): ...",
            "with open('x') as deco: pass\n@deco\ndef a(): ...",
            "class A:\n    @property\n    def x(self): ...\n    @x.setter\n    def x(self, value): ...",
            "def make(deco):\n    @deco\n    def inner(): ...\n    return inner\nx = make(flow)",
            "from elsewhere import task\n@task\n@staticmethod\ndef a(): ...",
            "def later():\n    @missing\n    def inner(): ...",
            "x = open(__file__), len([y for y in range(3)]), (lambda z: z())(print)",
            "x = [job() for job in [flow]]",
            "x = __import__('os').getcwd()",
            "from prefect import flows, Flow, task, tags",
            "from other import flwo\n@flwo\ndef a(): ...",
            "from .prefect import flwo\n@flwo\ndef a(): ...",
            "raise ImportError('moved')",
            "@flow\ndef a(): ...\nraise SystemExit",
            "if x:\n    raise A\n@flow\ndef a(): ...",
            "def later():\n    raise A\n@flow\ndef a(): ...",
        ],
    )
    def test_what_may_be_right_is_not_doubted(self, tmp_path: Path, source: str) -> None:
        assert doubts_of(tmp_path, source) == ()

    @pytest.mark.parametrize(
        ("source", "doubts"),
        [
            ("x = make('x')", [("undefined", "flwo", 3, ("lib.py", 2))]),
            ("x = make('x')\ny = make('y')", [("undefined", "flwo", 3, ("lib.py", 2))]),
            ("def mine(): return make('x')\nx = mine()", [("undefined", "flwo", 3, ("lib.py", 2))]),
            ("@job\ndef a(): ...", []),
            ("@job('daily')\ndef a(): ...", []),
            ("@job2('daily')\ndef a(): ...", []),
            ("@job3('daily')\ndef a(): ...", []),
            ("@always('daily')\ndef a(): ...", [("no-function", "'daily'", 3, ("lib.py", 10))]),
            ("try:\n    x = make('x')\nexcept NameError:\n    x = None", []),
        ],
    )
    def test_a_function_of_another_file_fails_for_who_calls_it(
        self, tmp_path: Path, source: str, doubts: list[tuple[str, str, int, tuple[str, int]]]
    ) -> None:
        library = [
            "from prefect import flow",
            "def make(name): return flwo(name=name)(len)",
            "def job(given):",
            "    if callable(given): return flow(given)",
            "    return flow(name=given)",
            "def job2(given):",
            "    if not callable(given): return flow(name=given)",
            "    return flow(given)",
            "def job3(given): return flow(given) if callable(given) else flow(name=given)",
            "def always(given): return flow(given)",
        ]
        write_files(tmp_path, {"lib.py": "\n".join(library)})
        found = doubts_of(tmp_path, f"from lib import always, job, job2, job3, make\n{source}")
        assert [tuple(each) for each in found] == doubts

    def test_what_a_function_may_not_do_is_not_doubted(self, tmp_path: Path) -> None:
        factory = "def job(given):\n    if callable(given):\n        return flow(given)\n    return flow(name=given)\n"
        assert doubts_of(tmp_path, f"{factory}@job('daily')\ndef a(): ...") == ()


def doubts_of(root: Path, source: str) -> tuple[Doubt, ...]:
    write_files(root, {"flows/it.py": f"from prefect import flow\n{source}\n"})
    sources = SourceFiles(root)
    return FlowReader(sources, ImportGraph(sources)).read("flows/it.py").doubts


class TestPlaces:
    def test_an_argument_lies_where_it_is_written(self, tmp_path: Path) -> None:
        source = "from mylib.decorators import job\n@job(\n    name='x',\n)\ndef etl(): ...\n"
        places = one(tmp_path, source).option_places
        assert places == {
            "name": ("flows/it.py", 3),
            "retries": ("mylib/decorators.py", 9),
            "tags": ("mylib/decorators.py", 9),
        }

    @pytest.mark.parametrize(
        ("source", "copies"),
        [
            ("a = shared.with_options(retries=3)", [True]),
            ("a = shared.with_options(name='')", [True]),
            ("a = shared.with_options(name='a')", [False]),
            ("a = shared.with_options(**unknown)", [False]),
            ("a = shared.with_options(retries=3).with_options(name='a')", [False]),
        ],
    )
    def test_a_copy_under_the_same_name(self, tmp_path: Path, source: str, copies: list[bool]) -> None:
        flows = flows_of(tmp_path, f"from mylib.decorators import shared\n{source}\n")
        assert [flow.is_copy for flow in flows.values()] == copies

    def test_a_method_that_takes_self_needs_an_instance(self, tmp_path: Path) -> None:
        source = "class A:\n    @flow\n    def a(self, x): ...\n    @staticmethod\n    @flow\n    def b(x): ...\n"
        flows = flows_of(tmp_path, f"from prefect import flow\n{source}")
        assert {name: flow.needs_instance for name, flow in flows.items()} == {"A.a": True, "A.b": False}

    def test_the_name_of_the_function_is_known_to_a_decorator(self, tmp_path: Path) -> None:
        source = (
            "def ours(fn):\n    return flow(name='x-' + fn.__name__.replace('_', '-'))(fn)\n@ours\ndef my_etl(): ...\n"
        )
        assert one(tmp_path, f"from prefect import flow\n{source}").name == "x-my-etl"
