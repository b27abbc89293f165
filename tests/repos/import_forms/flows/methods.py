"""Flows in classes."""

import prefect
from mylib.decorators import our_flow, retrying
from prefect import flow


class Jobs:
    @flow
    def instance_method(self, a: int):
        pass

    @flow(name="method-static")
    @staticmethod
    def static_inside(a, b=1):
        pass

    @staticmethod
    @flow(name="method-static-outside")
    def static_outside(a, b=1):
        pass

    @flow(name="method-class")
    @classmethod
    def class_inside(cls, a):
        pass

    @prefect.flow(name="method-async")
    async def async_method(self, a):
        pass

    @retrying
    def through_partial(self):
        pass

    @our_flow
    def through_wrapper(self, rows):
        pass

    class Inner:
        @flow(name="method-inner")
        @staticmethod
        def deep(x):
            pass

    def helper(self):
        @flow
        def not_reachable():
            pass

        return not_reachable


class Child(Jobs):
    @flow(name="method-child")
    @staticmethod
    def own(y):
        pass


class Bound:
    PREFIX = "method"

    @flow(name=f"{PREFIX}-bound")
    @staticmethod
    def with_class_constant(z):
        pass
