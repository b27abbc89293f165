from prefect import flow

import shared.helper


@flow
def needs_broken():
    shared.helper.help()
