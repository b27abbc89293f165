"""Constants for names."""

TEAM = "finance"
STAGE: str = "nightly"
FULL = f"{TEAM}-{STAGE}"
ADDED = TEAM + "-" + "added"
COMPUTED = "-".join([TEAM, "computed"])
OPTIONS = {"name": "finance-from-mapping", "retries": 1}


class Names:
    LOAD = "finance-load"
    EXPORT = f"{TEAM}-export"
