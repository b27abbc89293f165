import os

from prefect import flow


@flow
def etl():
    pass


@flow(name="x" if os.sep else "y")
def unknown():
    pass


@flow(name="z" if os.sep else "y")
def unknown_2():
    pass
