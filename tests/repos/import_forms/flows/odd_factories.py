"""Factories of which not everything can be known by reading: what is said of their flows must be true all the same."""

from prefect import flow

PREFIX = "odd"
DEFAULT = f"{PREFIX}-default"


def plain(q: int = 1):
    pass


def make_kwargs(**options):
    @flow(**options)
    def inner(a):
        pass

    return inner


def make_args(*names):
    return flow(name="-".join(names))(plain)


def make_conditional(name, loud=False):
    if loud:

        @flow(name=f"{name}-loud")
        async def inner(a):
            pass

    else:

        @flow(name=name)
        def inner(a, b):
            pass

    return inner


def make_early(name, fn=None):
    if fn is not None:
        return flow(fn, name=name)

    @flow(name=f"{name}-late")
    def inner(a):
        pass

    return inner


def make_shouting(name):
    name = name.upper()

    @flow(name=name)
    def inner(a):
        pass

    return inner


def make_second_version(name):
    name = f"{name}-v2"
    return flow(name=name)(plain)


def make_with_globals(name):
    return flow(name=f"{PREFIX}-{SUFFIX}-{name}")(plain)


def make_recursive(depth):
    if depth == 0:
        return flow(name="odd-recursive")(plain)
    return make_recursive(depth - 1)


def make_forever(name):
    """Never called: it would never end."""
    return make_forever(name)


def make_pair(name):
    return flow(plain, name=f"{name}-left"), flow(plain, name=f"{name}-right")


def make_with_constant(name=DEFAULT, /, *, retries=0):
    return flow(plain, name=name, retries=retries)


def make_with_inner_default(name):
    @flow(name=name)
    def inner(table=name, limit=10):
        pass

    return inner


def make_by_try(name):
    try:
        made = flow(plain, name=name)
    except ValueError:
        made = None
    return made


def make_maker(prefix):
    def make(name):
        return flow(plain, name=f"{prefix}-{name}")

    return make


def make_inside(name):
    def wrap():
        return flow(plain, name=name)

    return wrap()


make_by_lambda = lambda name: flow(plain, name=name)  # noqa: E731


class Maker:
    @staticmethod
    def static(name):
        return flow(plain, name=name)

    @classmethod
    def by_class(cls, name):
        return flow(plain, name=name)

    def __init__(self, prefix):
        self.prefix = prefix

    def by_instance(self, name):
        return flow(plain, name=f"{self.prefix}-{name}")


SUFFIX = "suffix"
with_globals = make_with_globals("globals")
SUFFIX = "changed"
with_globals_changed = make_with_globals("globals")

kwargs = make_kwargs(name="odd-kwargs", retries=1)
args = make_args("odd", "args")
quiet = make_conditional("odd-quiet")
loud = make_conditional("odd", loud=True)
early = make_early("odd-early", plain)
late = make_early("odd")
shouting = make_shouting("odd-shouting")
second_version = make_second_version("odd")
recursive = make_recursive(3)
left, right = make_pair("odd")
with_constant = make_with_constant()
with_constant_given = make_with_constant("odd-given", retries=2)
with_inner_default = make_with_inner_default("odd-inner-default")
by_try = make_by_try("odd-by-try")
by_maker = make_maker("odd")("by-maker")
inside = make_inside("odd-inside")
by_lambda = make_by_lambda("odd-by-lambda")
by_static_method = Maker.static("odd-by-static")
by_class_method = Maker.by_class("odd-by-class")
by_instance = Maker("odd").by_instance("by-instance")
unpacked = make_kwargs(**{"name": "odd-unpacked"})
starred = make_with_constant(*["odd-starred"])
by_choice = make_pair("odd-choice")[0]
by_ternary = flow(plain, name="odd-ternary") if PREFIX else None
