-- A third set of sums leaves out who the jobs are of, so that reports by hour stay fast: over a month the second set
-- has hundreds of thousands of rows. And batches are shown with the share of their money that may be wasted.
--
-- Workers of earlier versions append their sums as before. They fold no more, since they do not know the third set: the
-- turn that they take is gone. The view of batches gets a column at its end.
set local lock_timeout = '5s';

-- ------------------------------------------------------------------------------------------------- the sums
create table sluice.tally_hour_target (
    like sluice.tally_hour_all including defaults,
    primary key (hour, route, provider, model, class, detail)
);
alter table sluice.tally_hour_target
    drop column project, drop column login, drop column code, drop column instead_of, drop column instead_why,
    -- Of answers of which another target was the first choice: the other sums have these in rows of their own.
    add column detours           bigint not null default 0,
    add column detour_cost_nanos bigint not null default 0;

comment on table sluice.tally_hour_target is
    'Sums by hour, of all projects, batches, logins, codes and first choices together, written with those of '
    'tally_hour_all: what reports by hour read.';

insert into sluice.tally_hour_target (hour, route, provider, model, class, detail, enqueued, succeeded, failed,
            cancelled, attempts, fallbacks, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos,
            uncertain_nanos, unpriced, total_ms, repaired, reasks, reask_cost_nanos, reask_unpriced, extra_nanos,
            extra_unknown, latency, first_byte, detours, detour_cost_nanos)
     select hour, route, provider, model, class, detail, sum(enqueued), sum(succeeded), sum(failed), sum(cancelled),
            sum(attempts), sum(fallbacks), sluice.capped(sum(input_tokens)), sluice.capped(sum(cached_tokens)),
            sluice.capped(sum(output_tokens)), sluice.capped(sum(cost_nanos)), sluice.capped(sum(waste_nanos)),
            sluice.capped(sum(uncertain_nanos)), sum(unpriced), sluice.capped(sum(total_ms)), sum(repaired),
            sum(reasks), sluice.capped(sum(reask_cost_nanos)), sum(reask_unpriced), sluice.capped(sum(extra_nanos)),
            sum(extra_unknown),
            sluice.histogram_sum(string_to_array(nullif(string_agg(array_to_string(latency, ','), ',')
                filter (where latency <> '{}'), ''), ',')::bigint[]),
            sluice.histogram_sum(string_to_array(nullif(string_agg(array_to_string(first_byte, ','), ',')
                filter (where first_byte <> '{}'), ''), ',')::bigint[]),
            coalesce(sum(attempts) filter (where instead_of <> ''), 0),
            sluice.capped(coalesce(sum(cost_nanos) filter (where instead_of <> ''), 0))
       from sluice.tally_hour_all group by 1, 2, 3, 4, 5, 6;

-- What jobs of no batch add up to, for reports by batch.
create index tally_hour_no_batch on sluice.tally_hour (hour) where batch = '';

-- The turn at folding has another name, so that workers of earlier versions find none.
delete from sluice.turn where name = 'fold_sums';
insert into sluice.turn (name) values ('fold_all_sums');

-- The days of a session whose zone is UTC are those by which sums are kept; of any other zone they come from the hours.
create or replace view sluice.cost_daily as
select date_trunc('day', t.hour) as day, t.project, t.provider, t.model, sum(t.attempts)::bigint as attempts,
       round(sum(t.cost_nanos) / 1e9, 9) as cost, round(sum(t.waste_nanos) / 1e9, 9) as waste,
       round(sum(t.uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(t.unpriced)::bigint as unpriced_attempts,
       sum(t.succeeded)::bigint as jobs_answered,
       sluice.cost_per_answer(sum(t.cost_nanos), sum(t.unpriced), sum(t.succeeded)) as cost_per_answer
  from (select hour, project, provider, model, attempts, cost_nanos, waste_nanos, uncertain_nanos, unpriced, succeeded
          from sluice.totals_days where current_setting('TimeZone') in ('UTC', 'Etc/UTC', 'GMT', 'Etc/GMT')
         union all
        select hour, project, provider, model, attempts, cost_nanos, waste_nanos, uncertain_nanos, unpriced, succeeded
          from sluice.totals_all where current_setting('TimeZone') not in ('UTC', 'Etc/UTC', 'GMT', 'Etc/GMT')) t
 where t.provider <> '' group by 1, 2, 3, 4;

-- An hour is one of UTC, also where a session of an application counts and has a zone that is half an hour off.
do $$
declare
    taker record;
begin
    for taker in
        select pg_get_functiondef(p.oid) as definition from pg_proc p
         where p.pronamespace = 'sluice'::regnamespace and strpos(p.prosrc, 'date_trunc(''hour'', now())') > 0
    loop
        execute replace(taker.definition, 'date_trunc(''hour'', now())', 'date_trunc(''hour'', now(), ''UTC'')');
    end loop;
end
$$;

-- ------------------------------------------------------------------------------------------------- batches

create or replace view sluice.batches as
select t.batch, min(t.project) as project, min(t.hour) as first_hour,
       sum(t.enqueued)::bigint as jobs, sum(t.succeeded)::bigint as succeeded, sum(t.failed)::bigint as failed,
       sum(t.cancelled)::bigint as cancelled,
       (sum(t.enqueued) - sum(t.succeeded) - sum(t.failed) - sum(t.cancelled))::bigint as unfinished,
       sum(t.attempts)::bigint as attempts, round(sum(t.cost_nanos) / 1e9, 9) as cost,
       round(sum(t.waste_nanos) / 1e9, 9) as waste, sum(t.unpriced)::bigint as unpriced_attempts,
       -- Where money alone is bounded, all jobs may fail.
       (select s.max_failed from sluice.stop_loss s
         where s.batch = t.batch and (s.max_failed < 1 or s.max_wasted is null)) as max_failed,
       exists (select from sluice.pause p where p.kind = 'batch' and p.name = t.batch) as paused,
       (select p.reason from sluice.pause p where p.kind = 'batch' and p.name = t.batch) as pause_reason,
       round(sum(t.uncertain_nanos) / 1e9, 9) as uncertain_cost,
       sluice.cost_per_answer(sum(t.cost_nanos), sum(t.unpriced), sum(t.succeeded)) as cost_per_answer,
       (select s.max_wasted from sluice.stop_loss s where s.batch = t.batch) as max_wasted
  from sluice.totals t where t.batch <> '' group by t.batch;

comment on column sluice.batches.max_failed is
    'The share of ended jobs that may fail before the batch is paused. NULL: any.';
comment on column sluice.batches.max_wasted is
    'The share of the cost that may go to calls whose answer was not accepted before the batch is paused. NULL: any.';

create function sluice.own_max_wasted(batch text) returns numeric
    language sql stable security definer set search_path = pg_catalog, pg_temp
    return (select s.max_wasted from sluice.stop_loss s
             where s.batch = own_max_wasted.batch
               and exists (select from sluice.job j where j.batch = s.batch and j.enqueued_by = session_user));

comment on function sluice.own_max_wasted is
    'The share of the cost of a batch in which this login has jobs that may be wasted before it is paused. NULL: any.';

-- ------------------------------------------------------------------------------------------------- rights
revoke execute on function sluice.own_max_wasted from public;

do $$ begin
    if to_regrole('sluice_reporter') is not null then
        grant select on sluice.tally_hour_target to sluice_reporter;
    end if;
    if to_regrole('sluice_worker') is not null then
        grant select, insert, update, delete on sluice.tally_hour_target to sluice_worker;
    end if;
    if to_regrole('sluice_enqueuer') is not null then
        grant execute on function sluice.own_max_wasted to sluice_enqueuer;
    end if;
end $$;
