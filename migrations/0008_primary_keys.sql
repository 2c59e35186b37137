-- A primary key for every table, so that a publication of all tables (change data capture, logical replication) does not
-- stop the queue: without one the server refuses updates and deletes of what is published.
--
-- Safe with workers of the versions before: they name the columns that they write, and read the newest state of a bucket
-- by any index that leads with (bucket, version). The sums that are not folded yet are few, so they are rewritten in a moment.

alter table sluice.tally add column id bigint generated always as identity primary key;

alter table sluice.bucket_state add primary key (bucket, version);
drop index sluice.bucket_state_newest;

alter table sluice.schema_support add primary key (oldest);
