"""A flow at the root of the workspace that uses its members."""

from common_tools.making import make_load
from ingest.flows import ingest_all
from prefect import flow


@flow
def combined(a, b=1):
    pass


customers = make_load(table="customers")
ingest_some = ingest_all.with_options(name="ingest-some")
