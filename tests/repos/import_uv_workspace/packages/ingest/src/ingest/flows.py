"""Uses another member of the workspace."""

from common_tools import make_load, team_flow
from common_tools.making import TEAM
from prefect import flow


@team_flow
def ingest_all(day: str):
    pass


@flow(name=f"{TEAM}-named")
def named():
    pass


orders = make_load("orders")
raw_orders = make_load("orders", schema="raw")
