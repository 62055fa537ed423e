"""Both ends of many TCP connections: messages sent at random, and when each had arrived.

    python -m live_parts.tcp_ends receive FOLDER BYTES
    python -m live_parts.tcp_ends send FOLDER BYTES ADDRESS CONNECTIONS RATE_HZ SECONDS

Both write a line for each message: connection, number and time on this boot's monotonic clock.
"""

from __future__ import annotations

import asyncio
import random
import struct
import sys
import time
from pathlib import Path

PORT = 18832
_HEAD = struct.Struct("<II")
#: For what is under way when the last message was sent.
_GRACE_S = 3.0


async def receive(file: Path, size: int) -> None:
    with file.open("w", buffering=1) as out:

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    message = await reader.readexactly(size)
                    now_s = time.monotonic()
                    connection, number = _HEAD.unpack_from(message)
                    out.write(f"{connection} {number} {now_s:.6f}\n")
            except asyncio.IncompleteReadError:
                writer.close()

        server = await asyncio.start_server(take, "0.0.0.0", PORT, limit=2**22)
        print("ready", flush=True)
        async with server:
            await server.serve_forever()


async def send(
    file: Path, size: int, address: str, connections: int, rate_hz: float, seconds: float
) -> None:
    with file.open("w", buffering=1) as out:

        async def one(connection: int) -> None:
            draw = random.Random(connection)
            _, writer = await asyncio.open_connection(address, PORT)
            number, until_s = 0, time.monotonic() + seconds
            while True:
                await asyncio.sleep(draw.expovariate(rate_hz))
                now_s = time.monotonic()
                if now_s > until_s:
                    break
                out.write(f"{connection} {number} {now_s:.6f}\n")
                writer.write(_HEAD.pack(connection, number) + bytes(size - _HEAD.size))
                number += 1
            await asyncio.sleep(_GRACE_S)
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(one(connection) for connection in range(connections)))


def main() -> None:
    what, folder, size, *rest = sys.argv[1:]
    if what == "receive":
        asyncio.run(receive(Path(folder) / "received.txt", int(size)))
    else:
        address, connections, rate_hz, seconds = rest
        file = Path(folder) / "sent.txt"
        asyncio.run(
            send(file, int(size), address, int(connections), float(rate_hz), float(seconds))
        )


if __name__ == "__main__":
    main()
