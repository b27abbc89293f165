from prefect import flow


@flow
def latin1_undeclared():
    """Größe"""
