"""What `puffle-accounts orphans find` costs where a provider holds much: `python -m bench.find`."""

import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from bench import accounts, databases
from bench.retry import kilobyte

HELD = (1_000, 100_000)  # inboxes, all of them named by an account


class Inboxes(BaseHTTPRequestHandler):
    """AgentMail's list of inboxes, whose cursor is the number of the next one; all else is done."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: its second one would wait for the client's word
    numbers = range(0)  # of the inboxes that are held

    def do_GET(self):
        asked = parse_qs(urlsplit(self.path).query)
        begin, limit = int(asked.get("page_token", ["0"])[0]), int(asked["limit"][0])
        until = begin + limit
        asked_for = self.numbers[begin:until]
        inboxes = [{"inbox_id": f"a{number}@bench.example"} for number in asked_for]
        following = str(until) if until < len(self.numbers) else None
        self.answer(json.dumps({"inboxes": inboxes, "next_page_token": following}).encode())

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(b"{}")

    do_POST = do_DELETE

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    with databases.postgres() as database:
        database.fill(accounts.rows(accounts.email, 0, max(HELD)))
        server = ThreadingHTTPServer(("127.0.0.1", 0), Inboxes)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for held in HELD:
            Inboxes.numbers = range(held)
            seconds, used, status = find(database, server.server_port)
            print(
                f"{held} inboxes: {seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} CPU s,"
                f" peak RSS {used.ru_maxrss * kilobyte() / 1e6:.0f} MB, exit {status}"
            )


def find(database, port):
    """Seconds, what the process used, and its exit code."""
    told = os.environ | {
        "DATABASE_URL": database.url,
        "AGENTMAIL_BASE_URL": f"http://127.0.0.1:{port}",
        "AGENTMAIL_API_KEY": "any",
    }
    started = time.perf_counter()
    words = [databases.COMMAND, "orphans", "find", "--plugin", "agentmail"]
    process = subprocess.Popen(words, env=told, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - started, used, process.returncode


if __name__ == "__main__":
    main()
