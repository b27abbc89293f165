from . import gamma
from .nested.leaf import leaf
