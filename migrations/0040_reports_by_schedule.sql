-- Schedules can make reports. A tick that did so enqueued no jobs, and says in words what it made.
--
-- An older worker knows no such schedules; it neither reads nor writes the column.
set local lock_timeout = '5s';

alter table sluice.tick add column reported text;

create or replace view sluice.ticks as
select t.schedule, t.at, t.state, t.by_hand, t.login, t.worker, t.batch, t.jobs, t.enqueue, t.failures, t.retry_at,
       t.reason, t.ended_at, t.reported
  from sluice.tick t;

comment on column sluice.ticks.reported is 'What it reported, and where to; NULL: it was to enqueue jobs.';
