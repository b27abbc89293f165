"""Names that are put together from constants, of this file and of others."""

import mylib.names
import mylib.names as labels
from mylib import TEAM_NAME
from mylib.names import ADDED, COMPUTED, FULL, OPTIONS, STAGE, TEAM, Names
from prefect import flow

LOCAL = "local"
BOTH = f"{LOCAL}-{TEAM}"
NUMBER = 3


class Here:
    NAME = "constant-in-class"


@flow(name=LOCAL)
def local_constant():
    pass


@flow(name=TEAM)
def imported_constant():
    pass


@flow(name=FULL)
def imported_f_string():
    pass


@flow(name=ADDED)
def imported_sum():
    pass


@flow(name=f"{TEAM}-{STAGE}-{LOCAL}")
def f_string():
    pass


@flow(name=BOTH)
def f_string_of_both():
    pass


@flow(name=TEAM + "-plus-" + LOCAL)
def added():
    pass


@flow(name=labels.STAGE)
def through_module():
    pass


@flow(name=f"{mylib.names.TEAM}-dotted")
def through_dotted():
    pass


@flow(name=f"{TEAM_NAME}-through-package")
def through_package():
    pass


@flow(name=Names.LOAD)
def class_constant():
    pass


@flow(name=Names.EXPORT)
def class_f_string():
    pass


@flow(name=Here.NAME)
def local_class_constant():
    pass


@flow(**OPTIONS)
def from_mapping():
    pass


@flow(name=COMPUTED)
def computed():
    pass


@flow(name=f"constant-{NUMBER}")
def number():
    pass


@flow(name="constant-%s" % LOCAL)
def percent():
    pass


@flow(name="constant-{}-{name}".format(TEAM, name=LOCAL))
def formatted():
    pass
