"""A server's side of the inference log, to be killed: says on stdout what it has been told is on the disk.

python killable_writer.py URL FOLDER PREFIX
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from inference_rows import finish, inference, thumb

from tunectl.backends.storage import inference_log_sql
from tunectl.inference_log.log_writer import Writer

CLIENTS = 8


async def client(writer: Writer, prefix: str, part: int) -> None:
    for turn in count():
        name = f"{prefix}-{part}-{turn}"
        await writer.accept(inference(turn, id=name, release=prefix))
        os.write(1, f"accepted {name}\n".encode())  # here the first token would be sent
        await asyncio.sleep(0)
        await writer.finish(name, finish(turn))
        os.write(1, f"finished {name}\n".encode())  # and here the last
        await writer.feedback(thumb(turn, id=f"fb-{name}", inference_id=name))
        os.write(1, f"feedback {name}\n".encode())


async def main(url: str, folder: str, prefix: str) -> None:
    with inference_log_sql.open_log(url, Path(folder), serving=True) as store:
        writer = Writer(store, lambda entry: entry, policy="refuse", timeout_seconds=600, waiting=1000)
        await asyncio.gather(*(client(writer, prefix, part) for part in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
