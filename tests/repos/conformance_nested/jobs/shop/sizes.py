from enum import Enum


class Size(Enum):
    SMALL = "small"
    LARGE = "large"
