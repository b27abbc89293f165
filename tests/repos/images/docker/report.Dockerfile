FROM prefecthq/prefect:latest
COPY . /app
WORKDIRR /app
