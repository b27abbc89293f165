"""Several bindings in one statement."""

from mylib.factories import make_flow
from prefect import flow


def first(a):
    pass


def second(b):
    pass


one, two = flow(first), flow(second)
(three, four) = (flow(first, name="unpacked-three"), make_flow("unpacked-four"))
[five, (six, seven)] = [flow(first, name="unpacked-five"), (flow(second, name="unpacked-six"), 7)]
eight = nine = flow(first, name="unpacked-eight")
head, *tail = flow(first, name="unpacked-head"), flow(second, name="not-reachable"), 1
left, right = make_flow("unpacked-left"), None
if walrus := flow(second, name="by-walrus"):
    pass
annotated: object = flow(first, name="unpacked-annotated")
swapped, other = 1, flow(second, name="unpacked-swapped")
