"""Answers of a provider that unpack to a gigabyte: what they cost the worker.

Every DELETE is a 200 in its time with an orphan, and the worker's memory at its highest stays
bounded: nothing is unpacked beyond what a judgement needs.
"""

import functools
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from wire import Wire, hear

from soak.live import Trial

SIZE = 2**30  # bytes, unpacked
BLOCK = 2**20
HEAD = b'{"type": "errors/unknown", "message": "'
STATUSES = (404, 403, 500, 200)
CODINGS = ("gzip", "deflate", "gzip, gzip")
TIMES = 4  # each
AT_ONCE = 8
MEMORY = 128 << 20  # bytes that a worker may need meanwhile, for all that are under way
PROCESSOR = 0.25  # seconds for each


@functools.cache
def bomb(coding):
    """Return a JSON object whose only text is very long, packed."""
    if coding == "gzip, gzip":
        return _gzip([bomb("gzip")])
    text = [b" " * BLOCK] * (SIZE // BLOCK)
    return _gzip([HEAD, *text, b'"}']) if coding == "gzip" else _packed([HEAD, *text, b'"}'])


def _gzip(parts):
    crc = functools.reduce(lambda crc, part: zlib.crc32(part, crc), parts, 0)
    tail = struct.pack("<II", crc, sum(map(len, parts)) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + _packed(parts, -zlib.MAX_WBITS) + tail


def _packed(parts, bits=zlib.MAX_WBITS):
    """Pack; a part that comes again is packed once, for each is flushed."""
    packer, packed, last = zlib.compressobj(9, zlib.DEFLATED, bits), [], None
    for part in parts:
        if bits > 0 or part is not last:  # deflate's sum at its end is over all of them
            packed.append(packer.compress(part) + packer.flush(zlib.Z_FULL_FLUSH))
        else:
            packed.append(packed[-1])
        last = part
    return b"".join(packed) + packer.flush()


class Bombs(Trial):
    """All of them against one worker class and one database."""

    INPUT = "bombs of 1 GB"

    def work(self):
        """Send all; return what came of it."""
        with (
            Wire(self._answer) as provider,
            self.service(UNIPILE_BASE_URL=provider.url) as (
                stack,
                server,
            ),
        ):
            self._blow_up(stack, server)
        return self.result() | self.figures

    def _blow_up(self, stack, server):
        kinds = [(status, coding) for coding in CODINGS for status in STATUSES] * TIMES
        names = [f"{number}-{status}-{coding}" for number, (status, coding) in enumerate(kinds)]
        names = [name.replace(", ", "+") for name in names]
        accounts = [stack.add_linkedin(provider_account_id=name) for name in names]
        [worker] = psutil.Process(server.process.pid).children()
        before, used = _highest(worker), sum(worker.cpu_times()[:2])
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(stack.delete, accounts))
        self.answers.update(str(each.status_code) for each in answers)
        seconds = sum(worker.cpu_times()[:2]) - used
        self.figures = {
            "MB more at most": (_highest(worker) - before) >> 20,
            "processor seconds": round(seconds, 2),
            "seconds": round(time.monotonic() - began, 1),
        }
        if self.figures["MB more at most"] > MEMORY >> 20:
            self.found.append(f"memory grew by {self.figures['MB more at most']} MB")
        if seconds / len(accounts) > PROCESSOR:
            self.found.append(f"{seconds:.1f} s of the processor")
        left = {str(each["account_id"]) for each in stack.orphans()}
        for name, account, answer in zip(names, accounts, answers, strict=True):
            if answer.status_code != 200 or (account not in left and "-200-" not in name):
                self.found.append(f"{name}: {answer.status_code}")

    @staticmethod
    def _answer(connection, _):
        while request := hear(connection):
            name = request.split(b" ")[1].rpartition(b"/")[2].decode()
            _, status, coding = name.split("-")
            body = bomb(coding.replace("+", ", ").replace("%2B", ", "))
            head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n"
            head += f"Content-Encoding: {coding.replace('%2B', ', ')}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)


def _highest(worker):
    """Return the most memory that a process has had, in bytes."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
