"""A function that happens to be called flow."""


def flow(fn):
    return fn


@flow
def one():
    pass


def make_flow(name):
    @flow
    def inner():
        pass

    return inner


two = make_flow("two")
