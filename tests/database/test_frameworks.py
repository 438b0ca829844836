"""An `accounts` table as Rails, Django and Laravel make it, with their types and triggers."""

from __future__ import annotations

import pytest
from support import APPLIED
from test_others_tables import assert_refused, assert_works, execute, said_by_check, upgrade

WORD = "character varying DEFAULT 'connected'::character varying NOT NULL"
IDS = "provider_account_id", "email_address", "agentmail_inbox_id", "instantly_account_id"


def rails(id: str = "uuid DEFAULT gen_random_uuid() NOT NULL", status: str = "") -> list[str]:
    """What `db/structure.sql` of Rails 8 holds; `t.datetime` has no zone, `t.string` no length."""
    ids = ", ".join(f"{name} character varying" for name in IDS)
    return [
        "CREATE TABLE public.schema_migrations (version character varying NOT NULL PRIMARY KEY)",
        "CREATE TABLE public.ar_internal_metadata (key character varying NOT NULL PRIMARY KEY,"
        " value character varying, created_at timestamp(6) without time zone NOT NULL,"
        " updated_at timestamp(6) without time zone NOT NULL)",
        f"CREATE TABLE public.accounts (id {id}, user_id uuid NOT NULL,"
        " type character varying NOT NULL,"
        f" status {status or WORD},"
        f" display_name character varying, {ids}, metadata jsonb DEFAULT '{{}}'::jsonb NOT NULL,"
        " created_at timestamp(6) without time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,"
        " updated_at timestamp(6) without time zone DEFAULT CURRENT_TIMESTAMP NOT NULL)",
        "ALTER TABLE ONLY public.accounts ADD CONSTRAINT accounts_pkey PRIMARY KEY (id)",
        "CREATE INDEX index_accounts_on_user_id ON public.accounts USING btree (user_id)",
        "CREATE UNIQUE INDEX index_accounts_on_provider_account_id ON public.accounts"
        " USING btree (provider_account_id)",
    ]


def django(id: str = "uuid", json: str = "jsonb", time: str = "timestamp with time zone"):
    """What `sqlmigrate` of Django 5 says; no `CharField` is NULL, choices constrain nothing."""
    ids = ", ".join(f"{name} varchar(254) DEFAULT '' NOT NULL" for name in IDS)
    return [
        f'CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY, "applied" {time})',
        f'CREATE TABLE "accounts" ("id" {id} NOT NULL PRIMARY KEY, "user_id" {id} NOT NULL,'
        ' "type" varchar(20) NOT NULL, "status" varchar(24) NOT NULL,'
        f" \"display_name\" varchar(100) DEFAULT '' NOT NULL, {ids},"
        f" \"metadata\" {json} DEFAULT '{{}}' NOT NULL,"
        f' "created_at" {time} DEFAULT CURRENT_TIMESTAMP NOT NULL,'
        f' "updated_at" {time} DEFAULT CURRENT_TIMESTAMP NOT NULL)',
        'CREATE INDEX "accounts_user_id_5f0c" ON "accounts" ("user_id")',
    ]


def laravel(*states: str, id: str = "uuid") -> list[str]:
    """What `migrate --pretend` of Laravel 12 says; an `enum` is a check, times have no zone."""
    ids = ", ".join(f'"{name}" varchar(255) null' for name in IDS)
    known = ", ".join(f"'{state}'" for state in states)
    return [
        'create table "migrations" ("id" integer primary key, "migration" varchar(255) not null)',
        f'create table "accounts" ("id" {id} not null, "user_id" {id} not null,'
        " \"type\" varchar(255) check (\"type\" in ('linkedin', 'email')) not null,"
        f' "status" varchar(255) check ("status" in ({known})) not null default \'connected\','
        f' "display_name" varchar(255) null, {ids}, "metadata" json null,'
        ' "created_at" timestamp(0) null, "updated_at" timestamp(0) null,'
        ' "deleted_at" timestamp(0) null, primary key ("id"))',
        'create index "accounts_user_id_index" on "accounts" ("user_id")',
    ]


#: As `moddatetime`, and as a table of what was deleted is kept.
TRIGGERS = (
    "CREATE TABLE audit (account_id uuid, what text)",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN NEW.updated_at := now(); RETURN NEW; END$$",
    "CREATE TRIGGER touch BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION touch()",
    "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS"
    " $$BEGIN INSERT INTO audit VALUES (OLD.id, TG_OP); RETURN OLD; END$$",
    "CREATE TRIGGER audit AFTER DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION audit()",
)
#: As a paranoid delete is made in the database.
PARANOID = (
    "CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
    " UPDATE accounts SET deleted_at = now() WHERE id = OLD.id; RETURN NULL; END$$",
    "CREATE TRIGGER hide BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION hide()",
)
STATES = ("connected", "credentials_required", "disconnected")


@pytest.mark.parametrize(
    "made", [rails(), django(), laravel(*STATES)], ids=["rails", "django", "laravel"]
)
def test_a_table_of_a_framework_is_adopted_and_torn_down_from(postgres_url, made):
    execute(postgres_url, *made, *TRIGGERS)
    assert upgrade(postgres_url).stdout == APPLIED
    assert execute(postgres_url, "SELECT * FROM audit") == [], "a rehearsal leaves nothing"
    assert_works(postgres_url)
    assert execute(postgres_url, "SELECT what FROM audit") == [("DELETE",)] * 2
    assert said_by_check(postgres_url) == ["up to date"]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (rails(id="bigserial NOT NULL"), "type uuid"),
        (rails(status="integer DEFAULT 0 NOT NULL"), "column status"),
        (laravel("connected", "paused"), "accounts_status_check"),
        (laravel(*STATES, id="char(26)"), "type uuid"),
        ([*laravel(*STATES), *PARANOID], "DELETE does not work"),
    ],
    ids=["rails", "rails enum", "laravel enum", "laravel ulid", "paranoid"],
)
def test_a_table_of_a_framework_that_cannot_work_is_refused(postgres_url, made, words):
    execute(postgres_url, *made)
    assert_refused(postgres_url, words)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (django(id="char(32)", json="text", time="datetime"), "char(32)"),
        (laravel("connected", "paused", id="varchar"), "CHECK constraint failed"),
        (laravel(*STATES, id="integer"), "column id"),
    ],
    ids=["django", "laravel enum", "laravel id"],
)
def test_in_sqlite_too(sqlite_url, made, words):
    execute(sqlite_url, *made)
    assert_refused(sqlite_url, words)


def test_in_sqlite_laravels_is_adopted(sqlite_url):
    execute(sqlite_url, *laravel(*STATES, id="varchar"))
    assert upgrade(sqlite_url).stdout == APPLIED
    assert_works(sqlite_url)
    assert said_by_check(sqlite_url) == ["up to date"]
