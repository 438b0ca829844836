"""A fake of all three providers: one process, keep-alive HTTP/1.1, every call answered with 200.

The base URL says how long a call takes: `http://127.0.0.1:PORT/after/50/agentmail`
answers after 50 ms. So one process serves every scenario, and hangs for some.
"""

import asyncio
import sys

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BACKLOG = 4096


class Provider(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.received = transport, b""

    def data_received(self, data):
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if end and len(body) >= content_length(head):
            self.received = body[content_length(head) :]
            asyncio.get_running_loop().call_later(latency(head), self.answer)

    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


def content_length(head):
    _, name, value = head.lower().partition(b"content-length:")
    return int(value.partition(b"\r\n")[0]) if name else 0


def latency(head):
    """Seconds, from a request line such as `DELETE /after/50/unipile/… HTTP/1.1`."""
    return int(head.split(b"/", 3)[2]) / 1000


async def serve(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
