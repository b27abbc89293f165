from prefect import flow


def make_trip(target):
    def trip(cargo: str, fast: bool = False):
        pass

    return flow(name=f"trip-{target}")(trip)
