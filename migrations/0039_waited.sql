-- What a job waited for before it became ready, so that the ledger of its next call says it. The reason stood in
-- `sluice.parked` and was gone with that row.
--
-- Workers of earlier versions leave it out and read it not: a job that they wake has no reason. The column is NULL for
-- almost all rows, and takes no room then.
set local lock_timeout = '5s';

alter table sluice.ready add column waited text;

comment on column sluice.ready.waited is
    'What the job waited for before, in the words of sluice.jobs.waits_for; NULL: for nothing, or it is not known.';
