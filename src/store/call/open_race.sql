-- Notes calls that are made beside another one of the same claim.
-- For each call $1 its job, $2 the fence of the claim, $3 its number, $4 provider, $5 model, $6 rung, $7 when it
-- begins, $8 the most that it may cost; $9 the version of the budgets, none of which covers them
with c as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[],
                         $6::smallint[], $7::timestamptz[], $8::bigint[])
               as c(job_id, fence, number, provider, model, rung, started, worst)
), held as (
    -- It also keeps the claim from being taken away before the calls are there to be booked.
    update sluice.inflight i
       set attempts = greatest(i.attempts, m.number)
      from (select job_id, fence, max(number) as number from c group by job_id, fence) m
     where i.job_id = any (array[m.job_id]) and i.fence = m.fence
       and (select v.version from sluice.budget_version v) = $9
       -- A transaction that has cancelled one of the jobs may stay open: the others do not wait for it.
       and (select set_config('lock_timeout', '300ms', true)) is not null
    returning i.fence
)
insert into sluice.race_call as r (job_id, fence, number, provider, model, rung, started, worst)
     select c.job_id, c.fence, c.number, c.provider, c.model, c.rung, c.started, c.worst
       from c where c.fence in (select h.fence from held h)
-- The call of that number was not made. A statement that was given up and is run late by the server must
-- not hide a later call.
on conflict (job_id, fence, number) do update
    set provider = excluded.provider, model = excluded.model, rung = excluded.rung,
        started = excluded.started, worst = excluded.worst
  where r.started <= excluded.started
  returning r.fence, r.number
