"""The ETL flows that ship with the project: one file per flow, so that a change to one redeploys only that one."""
