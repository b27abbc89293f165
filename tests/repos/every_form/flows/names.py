"""Names that reading can work out."""

from prefect import flow

PREFIX = "acme"
TEAM = PREFIX + "-data"
NAME: str = f"{TEAM}-etl"
OPTIONS = {"name": "from-options", "retries": 3}


@flow(name="literal " "in two parts")
def literal():
    pass


@flow(name=NAME)
def constant():
    pass


@flow(name=f"{PREFIX}-daily")
def f_string():
    pass


@flow(name="acme" + "-sum")
def added():
    pass


@flow(**OPTIONS)
def unpacked():
    pass


@flow(name=None)
def name_is_none():
    pass


@flow
def _private__name_():
    pass


NAME = "later"


@flow(name=NAME)
def rebound_constant():
    pass
