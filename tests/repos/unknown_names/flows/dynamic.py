"""Names that reading cannot work out."""

import enum
import os

from prefect import flow
from somewhere import helper

if os.environ.get("PROD"):
    STAGE = "prod"
else:
    STAGE = "dev"

COUNT = 1
COUNT += 1


class Label(enum.Enum):
    ETL = "etl"


@flow(name=os.environ["NAME"])
def from_environment():
    pass


@flow(name=f"etl-{STAGE}")
def depends_on_branch():
    pass


@flow(name=f"etl-{COUNT}")
def not_text():
    pass


@flow(name=f"{STAGE!r}")
def converted():
    pass


@flow(name=Label.ETL)
def enum_member():
    pass


@flow(**os.environ)
def unknown_options():
    pass


for number in range(3):

    @flow(name=f"loop-{number}")
    def in_loop():
        pass


elsewhere = flow(helper)
elsewhere_named = flow(helper, name="elsewhere-named")
maybe_renamed = elsewhere_named.with_options(**os.environ)
