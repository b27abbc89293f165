from prefect import flow


@flow
def elsewhere():
    pass


@flow(name="the first is shadowed")
def twice():
    pass


@flow(name="second")
def twice():  # noqa: F811
    pass
