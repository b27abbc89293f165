# -*- coding: latin-1 -*-
from prefect import flow


@flow
def latin1_declared():
    """Größe"""
