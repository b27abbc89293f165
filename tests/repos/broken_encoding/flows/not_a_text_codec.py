# coding: hex
from prefect import flow


@flow
def x():
    """Größe"""
