"""The last binding counts."""

from mylib.factories import make_flow
from mylib.ready import ready
from prefect import flow


@flow(name="rebound-first")
def twice(a):
    pass


@flow(name="rebound-second")
def twice(a, b):  # noqa: F811
    pass


@flow
def becomes_a_number():
    pass


becomes_a_number = 5  # noqa: F811


@flow
def deleted():
    pass


del deleted

ready = ready.with_options(name="rebound-ready")


def replaced(x):
    pass


replaced = flow(replaced, name="rebound-decorated")
moved = make_flow("rebound-moved")
kept = moved
del moved
