# The image of every flow that has no Dockerfile of its own: what the repository declares to install, then its code.
# Another base image: images: {builds: {docker/flow.Dockerfile: {arguments: {BASE: ...}}}} in the environment's file.
ARG BASE=prefecthq/prefect:3-python3.11
FROM ${BASE}

WORKDIR /opt/flows
ENV PYTHONPATH=/opt/flows:/opt/flows/src

# As long as these files stay as they are, so does what was installed: a change of code installs nothing anew.
# Each of them may be missing; at least one is there.
COPY pyproject.tom[l] requirements.tx[t] constraints.tx[t] ./
RUN set -e; \
    if [ -f constraints.txt ]; then set -- --constraint constraints.txt; fi; \
    if [ -f requirements.txt ]; then uv pip install --system "$@" -r requirements.txt; fi; \
    if grep -qs '^\[project\]' pyproject.toml; then uv pip install --system "$@" -r pyproject.toml; fi

COPY . .
