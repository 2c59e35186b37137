-- Moves jobs from the front of lanes into the hands of a worker, and brings their bodies.
-- $1 worker, then for each lane $2 flow, $3 prio, $4 after which job, $5 how many at most; $6 bytes of a request at most;
-- $7 bytes that all of the requests have together at most, as they are stored, but for the first; $8 the number before the
-- first fence; $9 only jobs that so many workers have died with, null: whatever they are; $10 the
-- members of the metadata that are wanted; $11 characters of each at most
with lane as (
    select * from unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::integer[]) l(flow, prio, after, n)
), picked as materialized (
    select p.* from lane l cross join lateral (
        select r.ctid as tid, r.flow, r.prio, r.job_id, r.attempts, r.crashes, r.round
          from sluice.ready r
         where r.flow = l.flow and r.prio = l.prio and r.job_id > l.after
           and ($9::smallint is null or r.crashes = $9)
           -- A worker that was declared dead and has not heard of it yet takes nothing: it would be rescued from it.
           and (select w.state from sluice.worker w where w.id = $1) = 'live'
         order by r.job_id limit l.n
           for update skip locked) p
), sized as materialized (
    -- How large a request will be in memory is not known before it is read; how it is stored is.
    select p.*, sum(j.stored) over (rows unbounded preceding) - j.stored as before
      from picked p left join lateral (
           select pg_column_size(b.request) as stored from sluice.job b where b.id = p.job_id limit 1) j on true
), taken as materialized (
    select * from sized where coalesce(before, 0) = 0 or before < $7
), gone as (
    delete from sluice.ready where ctid = any (array(select tid from taken))
), mine as (
    insert into sluice.inflight (job_id, fence, worker, flow, prio, attempts, crashes, round)
         select job_id, $8 + row_number() over (), $1, flow, prio, attempts, crashes, round from taken
    returning job_id, fence, flow, prio, attempts, crashes, round
)
select m.job_id, m.fence, m.flow, m.prio, m.attempts, m.crashes, m.round,
       (select count(*) from picked) > (select count(*) from taken) as "cut!",
       -- Whatever a number meant before the database went back in time: this job began at this very instant.
       ('x' || encode(timestamptz_send(j.created_at), 'hex'))::bit(64)::bigint as "born!",
       j.route as "route!", j.project as "project!", j.batch,
       -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
       least(greatest(j.created_at, j.run_at, '1970-01-01 00:00:00+00'), '9999-12-31 00:00:00+00') as "ready_at!",
       case when j.deadline < '9999-12-31 00:00:00+00'
            then greatest(j.deadline, '1970-01-01 00:00:00+00') end as deadline,
       j.max_attempts, case when octet_length(j.body) <= $6 then j.body end as request,
       case when $10::text[] <> '{}' and j.metadata is not null
            then array(select left(j.metadata ->> w.member, $11) from unnest($10::text[]) w(member)) end
           as "metadata: Vec<Option<String>>"
  from mine m cross join lateral (
       select b.*, b.request::text as body from sluice.job b where b.id = m.job_id limit 1) j
