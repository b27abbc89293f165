from prefect import flow


@flow(name="by-dash")
def a():
    pass


@flow
def by_underscore():
    pass


@flow(name="none")
def c():
    pass
