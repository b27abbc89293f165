"""Async flows and generators."""

from prefect import flow


@flow
def generates(n: int):
    yield from range(n)


@flow
async def generates_async(n: int = 2):
    for i in range(n):
        yield i


@flow(name="awaits")
async def coroutine(seconds: float):
    pass


def plain_generator(rows):
    yield rows


async def async_generator(rows):
    yield rows


called_generator = flow(plain_generator, name="called-generator")
called_async_generator = flow(name="called-async-generator")(async_generator)
