"""The service in FastAPI: SQLAlchemy async, asyncpg or aiosqlite, aiohttp.

Providers are called concurrently, and no connection is held meanwhile.
"""

import asyncio
import hashlib
import logging
import os
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Annotated
from urllib.parse import quote

import aiohttp
from fastapi import Depends, FastAPI, HTTPException, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import DateTime, String, Uuid, delete, event, make_url, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DRIVERS = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
ACCOUNT_ID = (
    "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
)
URL = make_url(os.environ["DATABASE_URL"])
SIZE = {"pool_size": 20, "max_overflow": 0} if URL.drivername == "postgresql" else {}
# Every transaction here is a single statement: without BEGIN and COMMIT it is 15 % cheaper.
engine = create_async_engine(
    URL.set(drivername=DRIVERS[URL.drivername]), isolation_level="AUTOCOMMIT", **SIZE
)
session = async_sessionmaker(engine, expire_on_commit=False)
escape = partial(quote, safe="")
logger = logging.getLogger(__name__)
Identifier = Uuid(as_uuid=False).with_variant(String(36), "sqlite")

if URL.drivername == "sqlite":

    @event.listens_for(engine.sync_engine, "connect")
    def tune(connection, _record):
        connection.execute("PRAGMA busy_timeout = 30000")
        connection.execute("PRAGMA synchronous = NORMAL")


class Base(DeclarativeBase):
    pass


class ApiKey(Base):
    __tablename__ = "api_keys"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(Identifier)
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(Identifier, primary_key=True)
    user_id: Mapped[str] = mapped_column(Identifier)
    type: Mapped[str]
    status: Mapped[str]
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    provider_account_id: Mapped[str | None]
    email_address: Mapped[str | None]
    agentmail_inbox_id: Mapped[str | None]
    instantly_account_id: Mapped[str | None]


@asynccontextmanager
async def lifespan(app):
    # aiohttp's own limit of 100 connections would cap the rate at 100 / latency.
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as app.state.http:
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def database():
    async with session() as db:
        yield db


Database = Annotated[AsyncSession, Depends(database)]


async def current_user(request: Request, db: Database):
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    digest = hashlib.sha256(key.encode()).hexdigest()
    wanted = select(ApiKey.user_id).where(ApiKey.sha256 == digest, ApiKey.revoked_at.is_(None))
    user_id = await db.scalar(wanted)
    if scheme != "Bearer" or user_id is None:
        raise HTTPException(401, "unauthorized", {"WWW-Authenticate": 'Bearer realm="puffle"'})
    return user_id


@app.delete("/api/accounts/{account_id}")
async def delete_account(
    db: Database,
    user_id: Annotated[str, Depends(current_user)],
    account_id: Annotated[str, Path(pattern=ACCOUNT_ID)],
):
    account_id = account_id.lower()
    account = await db.scalar(
        select(Account).where(Account.id == account_id, Account.user_id == user_id)
    )
    if account is None:
        raise HTTPException(404, "account_not_found")
    # Gives the connection back to the pool while the providers are awaited.
    await db.commit()
    await asyncio.gather(*teardowns(account))
    await db.execute(row_change(account))
    await db.commit()
    return JSONResponse({"success": True})


def teardowns(account):
    if account.type == "linkedin":
        if account.status != "disconnected":
            yield call("unipile", "DELETE", f"/accounts/{escape(account.provider_account_id)}")
        return
    if account.instantly_account_id:
        yield leave_instantly(account)
    if account.agentmail_inbox_id:
        yield call("agentmail", "DELETE", f"/v0/inboxes/{escape(account.agentmail_inbox_id)}")


def row_change(account):
    if account.type == "linkedin" and account.status != "disconnected":
        change = {"status": "disconnected", "updated_at": datetime.now(timezone.utc)}
        return update(Account).where(Account.id == account.id).values(change)
    return delete(Account).where(Account.id == account.id)


async def leave_instantly(account):
    emails = {"emails": [account.email_address]}
    await call("instantly", "POST", "/api/v2/accounts/warmup/disable", json=emails)
    await call("instantly", "DELETE", f"/api/v2/accounts/{escape(account.instantly_account_id)}")


async def call(provider, method, path, **options):
    key = os.environ[f"{provider.upper()}_API_KEY"]
    headers = {"X-API-KEY": key} if provider == "unipile" else {"Authorization": f"Bearer {key}"}
    url = os.environ[f"{provider.upper()}_BASE_URL"] + path
    try:
        async with app.state.http.request(method, url, headers=headers, **options) as response:
            response.raise_for_status()
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        logger.warning("%s: %r", provider, error)


@app.exception_handler(HTTPException)
async def problem(_request, error):
    body = {"type": "about:blank", "title": error.detail, "status": error.status_code}
    return JSONResponse(
        body | {"error": error.detail}, error.status_code, error.headers, "application/problem+json"
    )


@app.exception_handler(RequestValidationError)
async def invalid(request, _error):
    return await problem(request, HTTPException(400, "invalid_account_id"))
