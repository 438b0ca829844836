"""Who uses the service: clients with stories of accounts, and an operator who looks after orphans.

Each client draws its stories from the seed and its own number.
"""

import json
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import requests

from soak.book import Answer

CLIENTS = 32
PATIENCE = 90.0  # seconds until a DELETE must have been answered with success
LONGEST = 70  # seconds for an answer
PAUSE = (0.05, 0.4)  # seconds before a client asks again
THINK = (0.05, 0.5)  # seconds between two stories
INSERT = """
INSERT INTO accounts (id, user_id, type, status, created_at, updated_at, provider_account_id,
                      email_address, agentmail_inbox_id, instantly_account_id, metadata)
VALUES (%s, %s, %s, %s, now(), now(), %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING"""
RECONNECT = """
UPDATE accounts SET status = 'connected', provider_account_id = %s, updated_at = now()
WHERE id = %s"""
IMPATIENCE = 3.0  # seconds
BEAT, NOTICED = 0.1, 0.1  # seconds
# The retries that a day would bring, within minutes; leases are left alone.
DUE = "UPDATE orphans SET next_attempt_at = now() WHERE next_attempt_at > now()"
UNPARK = """
UPDATE orphans SET parked_at = NULL, attempts = 1, next_attempt_at = now()
WHERE parked_at < now() - interval '2 s'"""


class Account:
    """An account, and what it names upstream by provider."""

    def __init__(self, rng, kind, names):
        self.id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self.kind, self.names = kind, names
        self.is_untouched = True  # nobody has asked for its end

    @property
    def is_linkedin(self):
        return self.kind.strip().lower() == "linkedin"

    def row(self, user_id, status):
        get = self.names.get
        metadata = json.dumps({"soak_contact": get("crm"), "note": "soak"})
        address = get("instantly")
        # Half of them have no id of Instantly's own: the address is what names the account there.
        own = address if address and int(self.id[0], 16) % 2 else None
        columns = (get("unipile"), address, get("agentmail"), own)
        return (self.id, user_id, self.kind, status, *columns, metadata)


class Client:
    """One client, with a session of its own."""

    def __init__(self, world, seed, number):
        self.world, self.book = world, world.book
        self._name, self._asked = f"{seed}-{number}", 0
        self._rng = random.Random(f"{seed}/client/{number}")
        self._session = requests.Session()
        self._session.trust_env = False
        if not world.is_behind_gateway:  # a kept connection is a worker's, which may end
            self._session.headers["Connection"] = "close"

    def work(self, over):
        """Tell one story after the other until it is over."""
        while not over.is_set():
            name = self._rng.choices(list(STORIES), list(STORIES.values()))[0]
            name(self, self._rng)
            over.wait(self._rng.uniform(*THINK))

    # Accounts

    def unique(self, word):
        return f"{word}-{self._rng.getrandbits(64):016x}"

    def new(self, kind, status="connected", names=None):
        """Make an account, and at the providers what it names."""
        account = Account(self._rng, kind, self._names(kind) if names is None else names)
        self._appear(account.names)
        self.world.sql(INSERT, *account.row(self.world.stack.user_id, status))
        self.book.note(account.id, f"made: {kind}, {status}, {account.names}")
        if status != "disconnected" or not account.is_linkedin:
            self.book.hold(account.id, account.names)
        return account

    def _names(self, kind):
        if kind.strip().lower() == "linkedin":
            names = {"unipile": self.unique("acc")}
        elif kind.strip().lower() == "email":
            address = f"{self.unique('in')}@outreach.example"
            names = {"agentmail": address, "instantly": address}
        else:
            names = {"crm": self.unique("contact")}
        if self._rng.random() < 0.3:
            names["crm"] = self.unique("contact")
        return names

    def _appear(self, names):
        for provider, resource in names.items():
            stand_in, name = self.world.upstream(provider)
            stand_in.add(name, resource)

    def _disappear(self, names):
        for provider, resource in names.items():
            stand_in, name = self.world.upstream(provider)
            stand_in.remove(name, resource)

    def linkedin(self):
        return self.new(self._rng.choice(["linkedin"] * 5 + [" LinkedIn"]))

    def any_kind(self):
        kinds = ["linkedin", "linkedin", "email", "email", "Email ", "calendar"]
        return self.new(self._rng.choice(kinds))

    def reconnect(self, account, session):
        """A user connects a LinkedIn account again; whether the row is there still."""
        account.names = {**account.names, "unipile": session}
        self._appear(account.names)
        self.book.note(account.id, f"reconnected as {session}")
        there = self.world.sql(RECONNECT, session, account.id)
        if not there:
            self._disappear(account.names)
        return bool(there)

    def is_connected(self, account):
        return self.world.sql(
            "SELECT 1 FROM accounts WHERE id = %s AND status = 'connected'", account.id
        )

    # Requests

    def ask(self, account_id, key=None, expected=None, **headers):
        """Send a DELETE; return what came of it."""
        self._asked += 1
        request_id = f"{self._name}-{self._asked}-{random.getrandbits(24):06x}"
        answer = Answer(account_id, key, request_id, time.time(), expected=expected)
        headers = {
            "Authorization": f"Bearer {self.world.stack.key}",
            "X-Request-ID": request_id,
            **({"Idempotency-Key": key} if key else {}),
            **headers,
        }
        url = f"{self.world.url}/api/accounts/{account_id}"
        try:
            heard = self._session.delete(url, headers=headers, timeout=LONGEST)
        except requests.RequestException as error:
            answer.error = type(error).__name__
        else:
            _read(answer, heard)
        answer.ended = time.time()
        self.book.answered(answer)
        return answer

    def end(self, account, key=None):
        """Ask until it is done; return the last answer."""
        self.book.release(account.id, account.names)
        until = time.time() + PATIENCE
        while time.time() < until:
            is_first, account.is_untouched = account.is_untouched, False
            answer = self.ask(account.id, key)
            if answer.status == 200 and is_first:
                self._compare(account, answer)
            if answer.status in (200, 404):
                return answer
            time.sleep(random.uniform(*PAUSE))
        self.book.found_wrong(account.id, f"not done for {PATIENCE:.0f} s")
        return answer

    def _compare(self, account, answer):
        """What a complete teardown names must be gone at that instant."""
        many = self.book.racing | self.book.sharing
        if answer.teardown != "complete" or account.id in many:
            return
        told = [each for each in account.names.items() if each not in self.book.lied]
        left = [each for each in told if self.world.holds(*each)]
        if left:
            self.book.found_wrong(account.id, f"200 complete, and there still is {left}")

    def together(self, *work):
        """Do several things at once; each is given a client of its own."""
        with ThreadPoolExecutor(len(work)) as pool:
            for future in [pool.submit(each, self._helper()) for each in work]:
                future.result()

    def _helper(self):
        number = f"{self._name.partition('-')[2]}.{self._asked}.{random.getrandbits(16)}"
        return Client(self.world, self._name.partition("-")[0], number)


def _read(answer, heard):
    answer.service = heard.headers.get("Soak-Service", "")
    if "X-Request-ID" not in heard.headers:  # the gateway's, or gunicorn's
        answer.error = f"{heard.status_code} of no application"
        return
    answer.status = heard.status_code
    answer.teardown = heard.headers.get("Teardown-Status")
    answer.replayed = "Idempotency-Replayed" in heard.headers
    answer.error = heard.json().get("error")


# The stories


def plain(client, rng):
    client.end(client.any_kind())


def keyed(client, rng):
    """The same key again and again, also after it was answered."""
    account, key = client.any_kind(), client.unique("key")
    for _ in range(rng.randint(1, 4)):
        client.end(account, key)


def overlapped_and_keyed(client, rng):
    account, key = client.any_kind(), client.unique("key")
    account.is_untouched = False
    client.together(*[lambda c: c.end(account, key)] * rng.randint(2, 3))
    client.end(account, key)


def overlapped(client, rng):
    account = client.any_kind()
    account.is_untouched = False
    client.together(*[lambda c: c.end(account)] * rng.randint(2, 3))


def ended_again(client, rng):
    """The soft delete, then the hard one."""
    account = client.linkedin()
    client.end(account)
    client.end(account, client.unique("key"))


def disconnected_before(client, rng):
    account = client.new("linkedin", "disconnected", {})
    client.end(account)


def reconnected_under_the_same_id(client, rng):
    account = client.linkedin()
    client.end(account)
    time.sleep(rng.uniform(0, 2))
    if client.reconnect(account, account.names["unipile"]):
        client.book.hold(account.id, account.names)
        _stay_or_end(client, rng, account)


def reconnected_under_a_new_id(client, rng):
    account = client.linkedin()
    client.end(account)
    if client.reconnect(account, client.unique("acc")):
        client.book.hold(account.id, account.names)
        _stay_or_end(client, rng, account)


def _stay_or_end(client, rng, account):
    time.sleep(rng.uniform(0, 3))
    if rng.random() < 0.5:
        client.end(account, client.unique("key"))


def reconnected_meanwhile(client, rng):
    """A user connects again under a new id while the DELETE is under way."""
    account, pause, session = client.linkedin(), rng.uniform(0, 1), client.unique("acc")
    client.book.racing.add(account.id)

    def reconnect(helper):
        time.sleep(pause)
        helper.reconnect(account, session)

    client.together(lambda c: c.end(account), reconnect)
    if client.is_connected(account):
        client.book.hold(account.id, account.names)


def shared(client, rng):
    """Two accounts of one resource: one ends and the other lives, or both end at once."""
    one = client.any_kind()
    other = client.new(one.kind, names=one.names)
    client.book.sharing |= {one.id, other.id}
    if rng.random() < 0.6:
        client.end(one)
        return
    client.together(lambda c: c.end(one), lambda c: c.end(other))


def key_of_another(client, rng):
    """A key that has been used is refused for another account."""
    one, other, key = client.linkedin(), client.linkedin(), client.unique("key")
    if client.end(one, key).status == 200:
        client.ask(other.id, key, expected=422)


def strangers(client, rng):
    account = client.linkedin()
    client.ask(account.id, expected=401, Authorization="Bearer pk_live_nobody")
    client.ask(account.id[:-1] + "~", expected=400)
    client.ask(str(uuid.UUID(int=rng.getrandbits(128), version=4)), expected=404)
    client.ask(account.id, "k" * 256, expected=400)


STORIES = {
    plain: 4,
    keyed: 4,
    overlapped_and_keyed: 3,
    overlapped: 2,
    ended_again: 2,
    disconnected_before: 1,
    reconnected_under_the_same_id: 4,
    reconnected_under_a_new_id: 3,
    reconnected_meanwhile: 4,
    shared: 4,
    key_of_another: 1,
    strangers: 1,
}


class Clients:
    """All clients at work until they are told that it is over."""

    def __init__(self, world, seed):
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        clients = [Client(world, seed, number) for number in range(CLIENTS)]
        self._working = [self._pool.submit(each.work, self._over) for each in clients]

    def finish(self):
        """Begin nothing more, and wait until all is done that was begun."""
        self._over.set()
        for future in self._working:
            future.result()


class Background:
    """Works in a thread until it is told to finish."""

    def __init__(self, world):
        self._world, self._over = world, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def finish(self):
        self._over.set()
        self._thread.join()


class Manager(Background):
    """Starts again what has ended by itself, as a service manager does."""

    def _work(self):
        while not self._over.wait(0.3):
            for each in (*self._world.services, *self._world.retriers):
                each.look_after()
            if self._world.pooler:
                self._world.pooler.look_after(self._world.book)


class Metronome(Background):
    """Measures how late this machine is: with who else is on it, a moment may last for seconds."""

    def _work(self):
        while not self._over.is_set():
            due = time.time() + BEAT
            time.sleep(BEAT)
            late = time.time() - due
            if late > NOTICED:
                self._world.book.lags.append((time.time(), late))


class Operator(Background):
    """Looks how many orphans there are, and has them tried sooner than the pauses say."""

    def _work(self):
        looked, acted = "SELECT count(*), count(parked_at) FROM orphans", time.time()
        while not self._over.wait(0.5):
            asked = time.time()
            [(count, parked)] = self._world.sql(looked)
            self._world.book.looks.append((asked, time.time()))
            self._world.book.samples.append((time.time(), count, parked))
            if time.time() - acted > IMPATIENCE:
                self._world.sql(DUE)
                self._world.sql(UNPARK)
                acted = time.time()
