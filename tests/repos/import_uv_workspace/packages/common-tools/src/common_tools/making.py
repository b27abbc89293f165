from prefect import flow

TEAM = "platform"


def team_flow(fn):
    return flow(retries=1)(fn)


def make_load(table, schema="public"):
    @flow(name=f"{TEAM}-{schema}-{table}")
    async def load(limit: int = 0):
        pass

    return load
