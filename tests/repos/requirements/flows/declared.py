"""Everything that is imported is declared, in one way or another."""

import json

import pydantic
from prefect import flow

from shared import tables


@flow
def declared(path: str = "x"):
    import boto3  # the project in libs/common declares it
    import dbt.version  # dbt-postgres brings dbt-core
    import pandas
    import prefect_aws  # prefect[aws]
    import yaml
    from acme_common import clean  # installed with -e
    from google.cloud import storage

    return json, pydantic, boto3, dbt, pandas, prefect_aws, yaml, clean, storage, tables
