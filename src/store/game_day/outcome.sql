-- What a game day did, by route: to the jobs whose calls failed on purpose, and to those that it kept from their first
-- choice without failing a call of theirs.
-- $1, $2: when it began and ended; $3: the code of such failures; $4: their message; $5: the word for what it shut;
-- $6: its targets; $7: how the names of routes of shadows begin.
-- The ledger is read once, from the instants at which calls ended, an hour beyond the end: calls that began in time may
-- take so long. All else is looked up by the number of the job.
with found as materialized (
    select a.job_id, a.provider || '/' || a.model as target, not a.accepted as on_purpose, a.cost_nanos, a.instead_nanos
      from sluice.attempt a
     where a.ended_at >= $1 and a.ended_at <= $2::timestamptz + interval '1 hour' and a.started_at <= $2
       and ((not a.accepted and a.code = $3 and a.message = $4)
            or (a.accepted and a.instead_why = $5
                and (a.instead_of = any ($6) or split_part(a.instead_of, '/', 1) = any ($6))))
), hit as (
    select f.job_id, count(*) as calls, array_agg(distinct f.target) as targets
      from found f where f.on_purpose group by f.job_id
), went as (
    select h.job_id, h.calls, r.state, r.provider || '/' || r.model = any (h.targets) as is_same,
           -- Where another target was the first choice, or none was passed over, what it would have cost is not known.
           case when answer.instead_of = any (h.targets) then answer.cost_nanos - answer.instead_nanos end as extra,
           spent.nanos, spent.unknown
      from hit h
           left join sluice.result r on r.job_id = h.job_id
           left join lateral (
               select a.cost_nanos, a.instead_of, a.instead_nanos from sluice.attempt a
                where a.job_id = h.job_id and a.accepted order by a.ended_at desc limit 1) answer on true
           cross join lateral (
               select coalesce(sum(a.cost_nanos), 0) as nanos, count(*) filter (where a.cost_nanos is null) as unknown
                 from sluice.attempt a where a.job_id = h.job_id) spent
), told as (
    select w.job_id, w.calls, 1 as jobs,
           (w.state = 'succeeded' and w.is_same)::int as same_target,
           (w.state = 'succeeded' and not w.is_same)::int as fell_back,
           (w.state = 'failed')::int as failed, (w.state = 'cancelled')::int as cancelled,
           (w.state is null)::int as unfinished, w.nanos, w.unknown,
           case when w.state = 'succeeded' and not w.is_same then w.extra end as extra,
           (w.state = 'succeeded' and not w.is_same and w.extra is null)::int as extra_unknown,
           0 as beside, null::bigint as beside_extra, 0 as beside_unknown
      from went w
    union all
    select f.job_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, null, 0, 1, f.cost_nanos - f.instead_nanos,
           (f.cost_nanos - f.instead_nanos is null)::int
      from found f
     where not f.on_purpose and not exists (select from hit h where h.job_id = f.job_id)
)
select j.route as "route!",
       sum(t.calls)::bigint as "calls!",
       sum(t.jobs)::bigint as "jobs!",
       sum(t.same_target)::bigint as "same_target!",
       sum(t.fell_back)::bigint as "fell_back!",
       sum(t.failed)::bigint as "failed!",
       sum(t.cancelled)::bigint as "cancelled!",
       sum(t.unfinished)::bigint as "unfinished!",
       sum(t.nanos)::bigint as "cost_nanos!",
       sum(t.unknown)::bigint as "cost_unknown!",
       sum(t.extra)::bigint as extra_nanos,
       sum(t.extra_unknown)::bigint as "extra_unknown!",
       sum(t.beside)::bigint as "beside!",
       sum(t.beside_extra)::bigint as beside_extra_nanos,
       sum(t.beside_unknown)::bigint as "beside_unknown!"
  from told t
       join sluice.job j on j.id = t.job_id
 where not starts_with(j.route, $7)
 group by j.route
 order by j.route
