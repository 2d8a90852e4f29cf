"""A load balancer as simple as one can be, in a process of its own: each connection goes to the next of some ports."""

import asyncio
import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence

import uvloop


@contextlib.contextmanager
def balancer(port: int, backends: Sequence[int]) -> Iterator[None]:
    """Balance from `port` until the end of the block."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_run, args=(port, list(backends), ready), daemon=True)
    process.start()
    try:
        if not ready.wait(30):
            raise RuntimeError("the balancer does not listen")
        yield
    finally:
        process.terminate()
        process.join(10)


def _run(port: int, backends: list[int], ready: "multiprocessing.synchronize.Event") -> None:
    turn = itertools.cycle(backends)

    async def pass_on(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        for _ in backends:
            with contextlib.suppress(OSError):
                node, to_node = await asyncio.open_connection("127.0.0.1", next(turn))
                break
        else:
            to_client.close()
            return
        await asyncio.gather(_pipe(client, to_node), _pipe(node, to_client))

    async def serve() -> None:
        server = await asyncio.start_server(pass_on, "127.0.0.1", port)
        ready.set()
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(262_144):
            writer.write(data)
            await writer.drain()
    writer.close()
