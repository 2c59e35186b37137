-- Moves jobs from the front of lanes into the hands of a worker, and brings their bodies.
-- $1 worker, then for each lane $2 flow, $3 prio, $4 after which job, $5 how many at most; $6 bytes of a request at most
with lane as (
    select * from unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::integer[]) l(flow, prio, after, n)
), picked as materialized (
    select p.* from lane l cross join lateral (
        select r.ctid as tid, r.flow, r.prio, r.job_id, r.attempts, r.crashes, r.round
          from sluice.ready r
         where r.flow = l.flow and r.prio = l.prio and r.job_id > l.after
           -- Whoever was declared dead and has not heard of it yet takes nothing: it would be rescued from it.
           and (select w.state from sluice.worker w where w.id = $1) = 'live'
         order by r.job_id limit l.n
           for update skip locked) p
), gone as (
    delete from sluice.ready where ctid = any (array(select tid from picked))
), mine as (
    insert into sluice.inflight (job_id, fence, worker, flow, prio, attempts, crashes, round)
         select job_id, nextval('sluice.fence_seq'), $1, flow, prio, attempts, crashes, round from picked
    returning job_id, fence, flow, prio, attempts, crashes, round
)
select m.job_id, m.fence, m.flow, m.prio, m.attempts, m.crashes, m.round,
       j.route as "route!", j.project as "project!", j.batch,
       -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
       least(greatest(j.created_at, j.run_at, '1970-01-01 00:00:00+00'), '9999-12-31 00:00:00+00') as "ready_at!",
       case when j.deadline < '9999-12-31 00:00:00+00'
            then greatest(j.deadline, '1970-01-01 00:00:00+00') end as deadline,
       j.max_attempts, case when octet_length(j.body) <= $6 then j.body end as request
  from mine m cross join lateral (
       select b.*, b.request::text as body from sluice.job b where b.id = m.job_id limit 1) j
