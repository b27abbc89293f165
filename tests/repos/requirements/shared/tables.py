def read(path):
    import polars

    return polars.read_csv(path)
