"""Its requirements exclude one another, and a module is missing."""

from prefect import flow


@flow
def old():
    import numpy
    import pandas

    from shared.tabels import read

    return numpy, pandas, read
