from ..gamma import VALUE

leaf = VALUE
