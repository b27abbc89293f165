"""Prefect loads a file as a package of its own: what lies beside it is relative to it."""

from .load import load

copy = load.with_options(name="shop-load-copy")
