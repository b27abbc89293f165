"""Speaks of a workflow, flow and Flow, but knows nothing of Prefect."""

flow = "flow"


def workflow():
    return flow
