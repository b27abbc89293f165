"""Copies of flows, of this file and of others."""

import mylib.ready
from mylib import ready as library
from mylib.factories import make_flow
from mylib.ready import ReadyJobs, ready, ready_async
from prefect import flow

STAGE = "test"


@flow(name="original")
def original(a, b=1):
    """The original."""


renamed = original.with_options(name="original-renamed")
retried = original.with_options(retries=3)
twice = renamed.with_options(retries=1).with_options(name="renamed-twice")
inline = flow(original.fn).with_options(name="inline")
of_import = ready.with_options(name="ready-renamed")
of_import_async = ready_async.with_options(name=f"ready-{STAGE}")
of_module = library.ready.with_options(name="ready-through-module")
of_dotted = mylib.ready.ready.with_options(name="ready-through-dotted")
of_imported_factory_flow = library.from_factory.with_options(name="ready-factory-renamed")
of_class = ReadyJobs.in_class.with_options(name="ready-class-renamed")
of_factory = make_flow("never-used").with_options(name="factory-renamed")
same_again = renamed
