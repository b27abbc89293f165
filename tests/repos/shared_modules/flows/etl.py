import importlib
import json

import pandas as pd
import yaml.nodes
from prefect import flow

import sibling
import src_package.deep.module
from lib import alpha, CONSTANT
from lib.beta import *
from namespace.inner import thing

plugin = importlib.import_module("plugins.first")
relative = importlib.import_module(".second", "plugins")
unknowable = importlib.import_module(json.loads('"x"'))
escaping = importlib.import_module("../../outside")


@flow
def etl():
    from lib import lazy
    import docker


@flow
def second_flow_of_the_file():
    pass
