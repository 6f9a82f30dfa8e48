-- The role that pitr connects as, with the least rights that will do. Run this as a superuser in the database "postgres".
CREATE ROLE {role} WITH LOGIN REPLICATION;
-- Where the configuration files lie, and other settings that not everybody may see.
GRANT pg_read_all_settings TO {role};
-- "pitr check" ends a WAL segment and watches it arrive.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO {role};
-- Only for "pitr backup --source local"; on 13 and 14 pg_start_backup(text, boolean, boolean) and pg_stop_backup(boolean, boolean):
-- GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean) TO {role}
-- Give it a password with \password in psql, and put that into the password file of whoever runs pitr (~/.pgpass).
