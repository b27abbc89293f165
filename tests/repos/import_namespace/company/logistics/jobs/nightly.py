"""Deep in a namespace package, with imports that start at the root and beside the file."""

from beside import SUFFIX
from company.finance.decorators import LABEL, finance_flow
from company.logistics.making import make_trip


@finance_flow(name=f"{LABEL}-{SUFFIX}")
def nightly():
    pass


south = make_trip("south")
