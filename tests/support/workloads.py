"""A schema with one of everything, and statements that change it."""

from __future__ import annotations

SCHEMA = [
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE TYPE spot AS (x int, y int)",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE SEQUENCE free INCREMENT 7",
    "CREATE TABLE parent (id serial PRIMARY KEY, name text NOT NULL UNIQUE, spent numeric DEFAULT 0)",
    (
        "CREATE TABLE child (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent_id int REFERENCES parent ON DELETE"
        " CASCADE ON UPDATE CASCADE, next_id int REFERENCES child DEFERRABLE INITIALLY DEFERRED, note text,"
        " twice int GENERATED ALWAYS AS (parent_id * 2) STORED)"
    ),
    "CREATE TABLE audit (at serial, what text)",
    (
        "CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO audit (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN coalesce(NEW, OLD); END $$"
    ),
    "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION audited()",
    "CREATE TABLE loud (id serial PRIMARY KEY, v int)",
    "CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON loud FOR EACH ROW EXECUTE FUNCTION audited()",
    "ALTER TABLE loud ENABLE ALWAYS TRIGGER audited",
    "CREATE TABLE ruled (id serial PRIMARY KEY, v int)",
    "CREATE RULE no_delete AS ON DELETE TO ruled DO INSTEAD INSERT INTO audit (what) VALUES ('refused')",
    "CREATE TABLE guarded (id serial PRIMARY KEY, owner text)",
    "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE guarded FORCE ROW LEVEL SECURITY",
    "CREATE POLICY none ON guarded USING (owner = 'nobody')",
    "CREATE TABLE booking (room int, during int4range, EXCLUDE USING gist (during WITH &&))",
    "CREATE TABLE measured (day int, v int, PRIMARY KEY (day)) PARTITION BY RANGE (day)",
    "CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM (100) TO (200)",
    "CREATE TABLE city (name text, people int)",
    "CREATE TABLE capital (country text) INHERITS (city)",
    "CREATE UNLOGGED TABLE cache (k text, v text)",
    "CREATE TABLE document (id serial PRIMARY KEY, body text, mood mood, at spot, size positive, tags text[])",
    "ALTER TABLE document ALTER body SET STORAGE EXTERNAL",
    "CREATE TABLE keyless (v int)",
    "CREATE TABLE big (id serial PRIMARY KEY, v int, filler text)",
    "CREATE MATERIALIZED VIEW summary AS SELECT count(*) AS n FROM parent",
]
ROWS = [
    "INSERT INTO parent (name) SELECT 'parent ' || n FROM generate_series(1, 20) n",
    "DELETE FROM parent WHERE id % 7 = 0",  # holes among the template's rows
    "INSERT INTO child (parent_id, note) SELECT id, 'c' FROM parent",
    "INSERT INTO loud (v) VALUES (1), (2)",
    "INSERT INTO ruled (v) VALUES (1), (2), (3)",
    "INSERT INTO guarded (owner) VALUES ('nobody'), ('me')",
    "INSERT INTO booking VALUES (1, '[1,5)'), (1, '[7,9)')",
    "INSERT INTO measured SELECT n * 10, n FROM generate_series(0, 19) n",
    "INSERT INTO city VALUES ('a', 1), ('b', 2)",
    "INSERT INTO capital VALUES ('c', 3, 'C')",
    "INSERT INTO cache VALUES ('k', 'v')",
    (
        "INSERT INTO document (body, mood, at, size, tags) SELECT repeat('long ', 2000), 'glad', ROW(n, n)::spot, n,"
        " ARRAY['t', n::text] FROM generate_series(1, 3) n"
    ),
    "INSERT INTO keyless SELECT n FROM generate_series(1, 10) n",
    "INSERT INTO big (v, filler) SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n",
    "REFRESH MATERIALIZED VIEW summary",
]

READS = [
    "SELECT * FROM parent",
    "SELECT * FROM parent FOR UPDATE",
    "SELECT count(*) FROM big",
    "UPDATE parent SET name = 'x' WHERE false",
    "SELECT pg_advisory_lock(42)",
    "NOTIFY anybody",
    "SELECT currval('free')",  # fails
]
INSERTS = [
    "INSERT INTO parent (name) VALUES ('new ' || random())",
    "INSERT INTO parent (name) VALUES ('fixed')",
    "INSERT INTO parent (name) VALUES ('parent 1')",  # fails
    "INSERT INTO parent (name) VALUES ('parent 1') ON CONFLICT DO NOTHING",
    "INSERT INTO parent (name) VALUES ('parent 1') ON CONFLICT (name) DO UPDATE SET spent = 9",
    "INSERT INTO child (parent_id, note) VALUES (2, 'new')",
    "INSERT INTO child (parent_id, next_id) VALUES (2, 99999)",  # fails when committed
    "INSERT INTO child (parent_id) VALUES (99999)",  # fails
    "INSERT INTO audit (what) VALUES ('by hand')",
    "INSERT INTO loud (v) VALUES (3)",
    "INSERT INTO ruled (v) VALUES (4)",
    "INSERT INTO guarded (owner) VALUES ('me')",
    "INSERT INTO booking VALUES (1, '[20,30)')",
    "INSERT INTO booking VALUES (1, '[2,3)')",  # fails
    "INSERT INTO measured VALUES (55, 1), (155, 2)",
    "INSERT INTO capital VALUES ('d', 4, 'D')",
    "INSERT INTO cache VALUES ('k2', 'v2')",
    "INSERT INTO document (body, mood, at, size) VALUES (repeat('new ', 3000), 'sad', ROW(0, 0)::spot, 9)",
    "INSERT INTO document (size) VALUES (-1)",  # fails
    "INSERT INTO keyless SELECT n FROM generate_series(1, 500) n",
    "INSERT INTO big (v, filler) SELECT n, repeat('y', 500) FROM generate_series(1, 40) n",
    "COPY (SELECT 1) TO STDOUT",
]
UPDATES = [
    "UPDATE parent SET spent = spent + 1 WHERE id = 3",
    "UPDATE parent SET id = id + 1000 WHERE id = 4",
    "UPDATE child SET note = 'changed'",
    "UPDATE child SET next_id = id WHERE id = 1",
    "UPDATE loud SET v = v + 1",
    "UPDATE guarded SET owner = 'you'",
    "UPDATE measured SET day = day + 100 WHERE day = 50",  # fails or moves
    "UPDATE measured SET v = v + 1 WHERE day < 30",
    "UPDATE city SET people = people + 1",
    "UPDATE cache SET v = 'w'",
    "UPDATE document SET body = repeat('other ', 2500) WHERE id = 2",
    "UPDATE document SET mood = 'sad'",
    "UPDATE keyless SET v = v + 1 WHERE v = 5",
    "UPDATE big SET v = 0 WHERE id = 77",
    "UPDATE parent SET spent = 5 WHERE name = 'fixed'",
]
DELETES = [
    "DELETE FROM parent WHERE id = 5",
    "DELETE FROM child WHERE id % 3 = 0",
    "DELETE FROM ruled",
    "DELETE FROM booking",
    "DELETE FROM measured WHERE day > 120",
    "DELETE FROM capital",
    "DELETE FROM document WHERE id = 1",
    "DELETE FROM keyless WHERE v = 3",
    "DELETE FROM keyless",
    "DELETE FROM parent WHERE name = 'fixed'",
    "DELETE FROM big WHERE id = 5",
]
SEQUENCES = ["SELECT nextval('free')", "SELECT setval('parent_id_seq', 500)", "SELECT setval('free', 3, false)"]
BEYOND = [
    "CREATE TABLE extra (v int)",
    "ALTER TABLE keyless ADD extra int",
    "DROP TABLE cache",
    "TRUNCATE keyless",
    "TRUNCATE booking RESTART IDENTITY",
    "CREATE TEMP TABLE passing AS SELECT 1",
    "REFRESH MATERIALIZED VIEW summary",
    "COMMENT ON TABLE parent IS 'seen'",
    "GRANT SELECT ON parent TO PUBLIC",
    "SELECT lo_create(0)",
    "ANALYZE parent",
    "ALTER SEQUENCE free RESTART",
    "CREATE INDEX ON big (v)",
    "REINDEX TABLE parent",
    "CLUSTER parent USING parent_pkey",
    "ALTER TABLE parent DISABLE TRIGGER audited",
]
CONTROL = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s"]
STATEMENTS = [*READS, *INSERTS, *UPDATES, *DELETES, *SEQUENCES, *CONTROL]
