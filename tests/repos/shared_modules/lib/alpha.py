from . import gamma
from .nested.leaf import leaf
from ...beyond import nothing
