-- Moves jobs from the front of lanes into the hands of a worker, and brings their bodies.
-- $1 worker, then for each lane $2 flow, $3 prio, $4 after which job, $5 how many at most; $6 bytes of a request at
-- most; $7 bytes that all of the requests have together at most, as they are stored, but for the first; $8 the number
-- before the first fence; $9 only jobs that so many workers have died with, null: whatever they are; $10 the members of
-- the metadata that are wanted; $11 characters of each at most;
-- $12 for each lane the place of its only job in the table, null: not known, or there are more
with lane as (
    select * from unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::integer[], $12::text[])
             l(flow, prio, after, n, place)
), picked as materialized (
    select p.* from lane l cross join lateral (
        select r.ctid as tid, r.flow, r.prio, r.job_id, r.attempts, r.crashes, r.round, r.waited
          from sluice.ready r
         where r.flow = l.flow and r.prio = l.prio and r.job_id > l.after
           and ($9::smallint is null or r.crashes = $9)
           -- A worker that was declared dead and has not heard of it yet takes nothing: it would be rescued from it.
           and (select w.state from sluice.worker w where w.id = $1) = 'live'
         order by r.job_id limit l.n
           for update skip locked) p
     where l.place is null
     union all
    -- A sweep of the table has seen where the only job of a thin lane lies. Taking it from there spares a descent of
    -- the index. If another job lies there by now, of another lane, nothing is taken, and the next look says more.
    select p.* from lane l cross join lateral (
        select r.ctid as tid, r.flow, r.prio, r.job_id, r.attempts, r.crashes, r.round, r.waited
          from sluice.ready r
         where r.ctid = l.place::tid and r.flow = l.flow and r.prio = l.prio and r.job_id > l.after
           and ($9::smallint is null or r.crashes = $9)
           and (select w.state from sluice.worker w where w.id = $1) = 'live'
           for update skip locked) p
     where l.place is not null
), sized as materialized (
    -- How large a request will be in memory is not known before it is read; how it is stored is. Each job's row is read
    -- here and only here: where jobs come from many lanes, each of them lies on a page of its own.
    select p.*, j.*, sum(j.stored) over (rows unbounded preceding) - j.stored as before
      from picked p left join lateral (
           select b.created_at, b.run_at, b.deadline, b.route, b.project, b.batch, b.enqueued_by, b.max_attempts,
                  b.request, b.metadata, pg_column_size(b.request) as stored
             from sluice.job b where b.id = p.job_id limit 1) j on true
), taken as materialized (
    select s.*, $8 + row_number() over () as fence from sized s where coalesce(s.before, 0) = 0 or s.before < $7
), gone as (
    delete from sluice.ready where ctid = any (array(select tid from taken))
), mine as (
    insert into sluice.inflight (job_id, fence, worker, flow, prio, attempts, crashes, round)
         select job_id, fence, $1, flow, prio, attempts, crashes, round from taken
)
select t.job_id as "job_id!", t.fence as "fence!", t.flow as "flow!", t.prio as "prio!", t.attempts as "attempts!",
       t.crashes as "crashes!", t.round as "round!", t.waited,
       (select count(*) from picked) > (select count(*) from taken) as "cut!",
       -- Whatever a number meant before the database went back in time: this job began at this very instant.
       timestamptz_send(t.created_at) as "born!",
       t.route as "route!", t.project as "project!", t.batch, t.enqueued_by as "login!",
       -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
       least(greatest(t.created_at, t.run_at, '1970-01-01 00:00:00+00'), '9999-12-31 00:00:00+00') as "ready_at!",
       case when t.deadline < '9999-12-31 00:00:00+00'
            then greatest(t.deadline, '1970-01-01 00:00:00+00') end as deadline,
       t.max_attempts, case when octet_length(r.body) <= $6 then r.body end as request,
       case when $10::text[] <> '{}' and t.metadata is not null
            then array(select left(t.metadata ->> w.member, $11) from unnest($10::text[]) w(member)) end
           as "metadata: Vec<Option<String>>"
  from taken t cross join lateral (select t.request::text as body offset 0) r
 where t.route is not null
