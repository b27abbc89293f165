"""Names that only running binds."""

import sys

from prefect import flow

TABLES = ("orders", "customers")


def make_load(table):
    @flow(name=f"dynamic-{table}")
    def load(rows: int):
        pass

    return load


for table in TABLES:
    globals()[f"load_{table}"] = make_load(table)

setattr(sys.modules[__name__], "by_setattr", make_load("setattr"))
exec("by_exec = make_load('exec')")

for table in ("last",):
    current = make_load(table)
