"""Flows in classes."""

from prefect import flow


class Jobs:
    LABEL = "from-class-body"

    @flow
    @staticmethod
    def static_inside(x: int):
        pass

    @staticmethod
    @flow(name="static-outside")
    def static_outside(x: int):
        pass

    @flow
    def instance_method(self, x: int):
        pass

    @flow(name=LABEL)
    def named_in_class(self):
        pass

    class Nested:
        @flow
        @staticmethod
        def deep():
            pass

    def helper(self):
        pass

    bound = flow(helper, name="bound-in-class")


class Names:
    ETL = "from-class-constant"


@flow(name=Names.ETL)
def class_constant():
    pass
