-- Takes open jobs out of the queue or out of another worker's hands, because a good answer to them came late.
-- For each answer $1 job, $2 fence, $3 round, $4 which job of that number it is by the time of its making.
with w as (
    -- Of two late answers for one job any one.
    select distinct on (job_id) job_id, fence, round, born
      from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[]) w(job_id, fence, round, born)
     order by job_id, fence
), open as (
    select w.job_id, w.fence, w.round,
           sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by) as flows,
           (-j.priority)::smallint as prio
      from w join sluice.job j on j.id = any (array[w.job_id])
           left join lateral (
           select true as has_ended from sluice.result r where r.job_id = any (array[w.job_id]) limit 1) e on true
     where e.has_ended is null
       -- Not another job that has the number now.
       and w.born in (0, ('x' || encode(timestamptz_send(j.created_at), 'hex'))::bit(64)::bigint)
), waiting as (
    delete from sluice.ready r using open o
     where r.flow = any (o.flows) and r.prio = any (array[o.prio]) and r.job_id = any (array[o.job_id])
       and r.round = o.round
    returning r.job_id, r.attempts, r.crashes
), parked as (
    delete from sluice.parked p using open o where p.job_id = any (array[o.job_id]) and p.round = o.round
    returning p.job_id, p.attempts, p.crashes
), running as (
    delete from sluice.inflight i using open o
     where i.job_id = any (array[o.job_id]) and i.round = o.round and i.fence <> o.fence
    returning i as held
), told as (
    insert into sluice.recall (worker, job_id, fence)
         select (held).worker, (held).job_id, (held).fence from running
), taken as (
    select job_id, attempts, crashes, false as booked from waiting
     union all
    select job_id, attempts, crashes, false from parked
     union all
    select (held).job_id, (held).attempts, (held).crashes,
           sluice.book_open_call(held, 'answered_elsewhere') from running
)
select o.job_id as "job_id!", o.fence as "fence!", o.flows[1] as "flow!", o.prio as "prio!", o.round as "round!",
       t.attempts as "attempts!", t.crashes as "crashes!"
  from taken t join open o using (job_id)
