from functools import partial

from prefect import flow

LABEL = "finance"
finance_flow = partial(flow, retries=2)
