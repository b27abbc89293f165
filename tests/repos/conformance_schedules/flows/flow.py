from prefect import flow


@flow(name="conformance-schedules")
def scheduled(rows: int = 1, day: str = "monday") -> None:
    """Has schedules."""
