from flows.common import team_flow


def make(name):
    @team_flow(name=f"made-{name}")
    def made(table: str, limit: int = 5):
        pass

    return made
