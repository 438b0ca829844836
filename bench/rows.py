"""Very many rows, made by PostgreSQL itself: another's `accounts`, and what was left of some."""

USER_ID = "5a6e8c1a-3f0b-4c57-9d0e-0b6f1f2a7c11"

# As another service has made it: no `metadata`, no index but the key's.
THEIRS = """
CREATE TABLE accounts (
    id uuid PRIMARY KEY, user_id uuid NOT NULL, type text NOT NULL, display_name text,
    status text NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
    provider_account_id text, profile_url text, email_address text, agentmail_inbox_id text,
    instantly_account_id text, first_name text, last_name text)"""

# Half are inboxes, half are LinkedIn's; of these a fifth is disconnected.
ACCOUNTS = """
INSERT INTO accounts
SELECT gen_random_uuid(), CASE n WHEN 0 THEN '{user}' ELSE md5((n / 3)::text)::uuid END,
    CASE WHEN mail THEN 'email' ELSE 'linkedin' END, 'Ada Nr. ' || n,
    CASE WHEN NOT mail AND n % 5 = 1 THEN 'disconnected' ELSE 'connected' END,
    now() - n * interval '10 seconds', now() - n * interval '5 seconds',
    CASE WHEN NOT mail THEN 'unipile' || n END,
    CASE WHEN NOT mail THEN 'https://linkedin.example/in/ada-' || n END,
    address, address, address, 'Ada', 'Lovelace'
FROM (
    SELECT n, n % 2 = 0 AS mail,
        CASE WHEN n % 2 = 0 THEN 'a' || n || '@bench.example' END AS address
    FROM generate_series(0, {many} - 1) AS n
) AS numbered"""

# Of accounts that are gone: six of ten are due, three wait, one is parked.
ORPHANS = """
INSERT INTO orphans (id, plugin, account_id, user_id, account, reason, attempts, created_at,
    next_attempt_at, parked_at, request_id)
SELECT gen_random_uuid(), plugin, account_id, user_id, CAST(json_build_object(
        'id', account_id, 'user_id', user_id, 'status', 'connected',
        'display_name', 'Ada Nr. ' || n,
        'type', CASE plugin WHEN 'unipile' THEN 'linkedin' ELSE 'email' END,
        'provider_account_id', CASE plugin WHEN 'unipile' THEN 'unipile' || n END,
        'email_address', address, 'agentmail_inbox_id', address, 'instantly_account_id', address,
        'metadata', json_build_object(), 'created_at', made, 'updated_at', made
    ) AS json), plugin || ': inbox delete: 503', 1 + n % 5, made,
    now() + CASE WHEN n / 4 % 10 < 6 THEN -1 ELSE 1 END * (n - {first}) * interval '0.1 seconds',
    CASE n / 4 % 10 WHEN 9 THEN now() - n * interval '1 second' END, md5(n::text)
FROM (
    SELECT n, gen_random_uuid() AS account_id, md5(n::text)::uuid AS user_id,
        now() - n * interval '2 seconds' AS made,
        (ARRAY['agentmail', 'agentmail', 'instantly', 'unipile'])[1 + n % 4] AS plugin,
        CASE WHEN n % 4 < 3 THEN 'a' || n || '@bench.example' END AS address
    FROM generate_series({first}, {first} + {many} - 1) AS n
) AS numbered"""

# Of the last two days; those of the first are to be swept.
KEYS = """
INSERT INTO idempotency_keys
SELECT md5(n::text)::uuid, 'key-' || n, gen_random_uuid(), md5('token' || n), made,
    made, 'complete'
FROM (
    SELECT n, now() - n * interval '48 hours' / {many} AS made FROM generate_series(1, {many}) AS n
) AS numbered"""


def accounts(connection, many):
    """Make another's table, with so many accounts."""
    connection.execute(THEIRS)
    connection.execute(ACCOUNTS.format(user=USER_ID, many=many))
    connection.execute("ANALYZE accounts")
    connection.execute("CHECKPOINT")


def orphans(connection, accounts, many):
    """Leave so many orphans, numbered after the accounts."""
    connection.execute(ORPHANS.format(first=accounts, many=many))
    connection.execute("ANALYZE orphans")
    connection.execute(KEYS.format(many=many))
    connection.execute("ANALYZE idempotency_keys")
    connection.execute("CHECKPOINT")
