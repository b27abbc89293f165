"""Flows of the library: they belong to this file, whoever imports them."""

from prefect import flow

from mylib.factories import make_flow


@flow(name="ready-made")
def ready(a: int, b: str = "x"):
    """Ready."""


@flow
async def ready_async(c: float):
    pass


from_factory = make_flow("ready-from-factory")


class ReadyJobs:
    @flow(name="ready-in-class")
    @staticmethod
    def in_class(k: int):
        pass
