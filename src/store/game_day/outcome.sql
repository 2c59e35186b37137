-- The jobs whose calls failed on purpose, and what answers cost other jobs of their routes meanwhile.
-- $1, $2: when the game day began and ended; $3: the code of such failures; $4: their message.
-- Calls are looked for by the instant at which they ended, so nothing of the time before or after is read.
with hit as materialized (
    select a.job_id, count(*) as calls, array_agg(distinct a.provider || '/' || a.model) as targets
      from sluice.attempt a
     where a.ended_at >= $1 and a.ended_at <= $2 and a.code = $3 and a.message = $4
     group by a.job_id
), went as (
    select h.calls, r.state, r.provider || '/' || r.model = any (h.targets) as is_same, spent.nanos
      from hit h
           left join sluice.result r on r.job_id = h.job_id
           cross join lateral (
               select coalesce(sum(a.cost_nanos), 0) as nanos from sluice.attempt a where a.job_id = h.job_id) spent
), others as (
    select count(*) as answers, coalesce(sum(a.cost_nanos), 0) as nanos
      from sluice.attempt a
           join sluice.job j on j.id = a.job_id
     where a.ended_at >= $1 and a.ended_at <= $2 and a.accepted
       and not exists (select from hit h where h.job_id = a.job_id)
       and j.route in (select distinct k.route from hit h join sluice.job k on k.id = h.job_id)
)
select coalesce(sum(w.calls), 0)::bigint as "calls!",
       count(*) as "jobs!",
       count(*) filter (where w.state = 'succeeded' and w.is_same) as "same_target!",
       count(*) filter (where w.state = 'succeeded' and not w.is_same) as "fell_back!",
       count(*) filter (where w.state = 'failed') as "failed!",
       count(*) filter (where w.state = 'cancelled') as "cancelled!",
       count(*) filter (where w.state is null) as "unfinished!",
       coalesce(sum(w.nanos), 0)::bigint as "cost_nanos!",
       (select o.answers from others o) as "other_answers!",
       (select o.nanos from others o)::bigint as "other_nanos!"
  from went w
