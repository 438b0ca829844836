"""The tables, bound to a database at the start; the migrations make them and their indexes."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from peewee import (
    AutoField,
    CharField,
    DateTimeField,
    Field,
    JSONField,
    Model,
    TextField,
)

from puffle_accounts import clock


class UUIDField(Field):
    """A native UUID in PostgreSQL; in SQLite the lower-case text with dashes of a URL."""

    def db_value(self, value: UUID | str | None) -> str | None:
        return None if value is None else str(value).lower()

    def python_value(self, value: UUID | str | None) -> str | None:
        return None if value is None else str(value)


class TimeField(DateTimeField):
    """A moment in UTC."""

    def db_value(self, value: datetime | None) -> str | None:
        return None if value is None else clock.stamp(value)

    def python_value(self, value: datetime | str | None) -> datetime | None:
        return clock.moment(value)


class AccountRow(Model):
    """What this service reads of `accounts`, and `metadata`, which it adds."""

    id = UUIDField(primary_key=True)
    user_id = UUIDField()
    type = CharField()
    display_name = TextField(null=True)
    status = CharField(null=True)
    created_at = TimeField(null=True)
    updated_at = TimeField(null=True)
    provider_account_id = TextField(null=True)
    email_address = TextField(null=True)
    agentmail_inbox_id = TextField(null=True)
    instantly_account_id = TextField(null=True)
    metadata = JSONField(null=True)

    class Meta:
        table_name = "accounts"


class ApiKey(Model):
    """A key of a user; the key itself is nowhere."""

    id = AutoField()
    user_id = UUIDField()
    name = TextField(null=True)
    prefix = CharField()
    sha256 = CharField()
    created_at = TimeField()
    revoked_at = TimeField(null=True)

    class Meta:
        table_name = "api_keys"


MODELS: list[Any] = [AccountRow, ApiKey]
