# coding: klingon
from prefect import flow


@flow
def x():
    """Größe"""
