"""Flows and makers from the file beside this one: a run has its folder on the import path."""

from factories import make_here
from partials import my_flow
from with_options import original

sibling_factory = make_here("from-sibling-factory")
sibling_copy = original.with_options(name="from-sibling-copy")


@my_flow(name="from-sibling-partial")
def sibling_partial(a):
    pass
