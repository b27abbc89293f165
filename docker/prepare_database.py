"""What each API process would do to the database when it starts, done once, before the first of them starts.

Processes that start side by side on an empty database register the same block types, and the server ends with
`duplicate key value violates unique constraint "uq_block_type__slug"`.
"""

import asyncio

from prefect.server.database import provide_database_interface
from prefect.server.models.block_registration import run_block_auto_registration


async def prepare() -> None:
    """Bring the tables up to this version of Prefect, and register its block types."""
    database = provide_database_interface()
    await database.create_db()  # migrates: `prefect server database upgrade`
    async with await database.session() as session:
        await run_block_auto_registration(session=session)


if __name__ == "__main__":
    asyncio.run(prepare())
