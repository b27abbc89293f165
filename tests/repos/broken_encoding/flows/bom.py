from prefect import flow


@flow
def bom():
    """Größe"""
