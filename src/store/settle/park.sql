-- Puts jobs whose claims hold back into the queue, and says which claims held.
-- $1 job, $2 fence, $3 calls made for it in all, $4 until when it waits, null: it does not, $5 what it waits for.
with w as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::timestamptz[], $5::text[])
      as w(job_id, fence, attempts, until, reason)
), held as (
    delete from sluice.inflight i using w where i.job_id = any (array[w.job_id]) and i.fence = w.fence
    returning i.job_id, i.fence, i.flow, i.prio, i.crashes, i.round, w.attempts, w.until, w.reason
), waiting as (
    insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
         select job_id, until, flow, prio, attempts, crashes, round, reason from held where until is not null
), back as (
    insert into sluice.ready (flow, prio, job_id, attempts, crashes, round, waited)
         select flow, prio, job_id, attempts, crashes, round, reason from held where until is null
)
select fence as "fence!" from held
