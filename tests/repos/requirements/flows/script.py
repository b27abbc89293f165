# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "prefect",
#     "duckdb",
# ]
# ///
"""Its block stands alone: pandas of the project does not count here."""

from prefect import flow


@flow
def script():
    import duckdb
    import pandas.io

    return duckdb, pandas
