"""What is measured."""

from dataclasses import dataclass

from bench import accounts

FASTEST = 20_000  # deletes per second that no contestant reaches on a few cores
WITHOUT_CALL = "LinkedIn, already disconnected: no provider call"


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    connections: int
    account: callable = accounts.disconnected
    database: str = "PostgreSQL"
    delay: int = 0  # milliseconds per provider call
    hung: int = 0  # e-mail deletes under way whose call to AgentMail hangs

    @property
    def critical_path(self):
        """Milliseconds that an e-mail delete cannot avoid.

        Disable precedes delete at Instantly; AgentMail runs beside them.
        """
        return 2 * self.delay if self.account is accounts.email else 0

    @property
    def limit(self):
        """Deletes per second if everything but the providers took no time."""
        return self.connections * 1000 / self.critical_path if self.critical_path else None

    def accounts_for(self, seconds):
        """More than anybody deletes in that time."""
        quickest = (self.critical_path or self.delay or 0.05) / 1000
        return int(min(FASTEST, self.connections / quickest) * seconds) + self.connections


def email(connections, delay):
    return Scenario(
        f"email-{delay}ms-{connections}",
        f"E-mail, {delay} ms per provider call, {plural(connections)}",
        connections,
        accounts.email,
        delay=delay,
    )


def without_call(connections, database="PostgreSQL"):
    return Scenario(
        f"{database.lower()}-{connections}",
        f"{WITHOUT_CALL}, {plural(connections)}, {database}",
        connections,
        database=database,
    )


def plural(connections):
    return f"{connections} connection{'s' * (connections > 1)}"


SCENARIOS = (
    without_call(1),
    without_call(64),
    email(1, 50),
    email(64, 50),
    email(512, 50),
    email(512, 200),
    Scenario(
        "hung",
        "LinkedIn, 5 ms per call, 8 connections, while 80 e-mail deletes hang at AgentMail",
        8,
        accounts.linkedin,
        delay=5,
        hung=80,
    ),
    without_call(64, "SQLite"),
)
