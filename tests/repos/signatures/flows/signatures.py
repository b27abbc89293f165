from prefect import flow


@flow
def variadic(x: int, *args, **kwargs):
    pass


@flow
def mutable(a=[], b={}, c={1}, d=list(), e=[n for n in "x"], f=(), g=None, h="[]"):
    pass


@flow
def needs_day(day: str, limit: int = 10):
    pass


@flow
def open_ended(**kwargs):
    pass


@flow
def late(x=1, *args):
    pass
