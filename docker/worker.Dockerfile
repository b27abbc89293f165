# A worker: Prefect, prefect-docker and the orchestrator, with the tested set of dependencies.
# Built from the repository's root: docker build -f docker/worker.Dockerfile .
FROM prefecthq/prefect:3.8.8-python3.11

# What flows of the repository import besides goes here: process workers run them in this environment.
COPY constraints.txt pyproject.toml README.md LICENSE /opt/orchestrator/
COPY orchestrator /opt/orchestrator/orchestrator
RUN pip install --no-cache-dir -c /opt/orchestrator/constraints.txt /opt/orchestrator

# The checkout is mounted, and belongs to somebody else: git reads it nevertheless.
RUN git config --system --add safe.directory /repository
