-- Dollars per accepted answer, in the views of sums: all the money that was spent, over the answers that were accepted.
--
-- Only views change, and columns come last: workers and programs of earlier versions read them as before.
set local lock_timeout = '5s';

create function sluice.cost_per_answer(cost_nanos numeric, unpriced numeric, accepted numeric) returns numeric
    language sql immutable parallel safe
    return case when unpriced <= 0 and accepted > 0 then round(round(cost_nanos / accepted) / 1e9, 9) end;

comment on function sluice.cost_per_answer is
    'Dollars per accepted answer: the cost of all attempts in billionths of a dollar, rejected and abandoned ones '
    'included, over the answers that were accepted. NULL when the price of an attempt is unknown, since any amount '
    'would be too low, and when no answer was accepted.';

create or replace view sluice.cost_by_provider as
select provider, model, sum(attempts)::bigint as attempts, sum(succeeded)::bigint as jobs_answered,
       sluice.capped(sum(input_tokens)) as input_tokens, sluice.capped(sum(cached_tokens)) as cached_tokens,
       sluice.capped(sum(output_tokens)) as output_tokens, round(sum(cost_nanos) / 1e9, 9) as cost,
       round(sum(waste_nanos) / 1e9, 9) as waste, round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost,
       sum(unpriced)::bigint as unpriced_attempts,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals where provider <> '' group by provider, model;

comment on column sluice.cost_by_provider.cost_per_answer is
    'Dollars per accepted answer: all that this target was paid, over its answers that were accepted. NULL: a price is '
    'unknown, or no answer was accepted. uncertain_cost may have been spent on top.';

create or replace view sluice.cost_daily as
select date_trunc('day', hour) as day, project, provider, model, sum(attempts)::bigint as attempts,
       round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(unpriced)::bigint as unpriced_attempts,
       sum(succeeded)::bigint as jobs_answered,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals where provider <> '' group by 1, 2, 3, 4;

comment on column sluice.cost_daily.jobs_answered is 'Jobs that an answer of that target on that day has ended.';
comment on column sluice.cost_daily.cost_per_answer is
    'Dollars per accepted answer of that day. NULL: a price is unknown, or no answer was accepted. uncertain_cost may '
    'have been spent on top.';

create or replace view sluice.batches as
select t.batch, min(t.project) as project, min(t.hour) as first_hour,
       sum(t.enqueued)::bigint as jobs, sum(t.succeeded)::bigint as succeeded, sum(t.failed)::bigint as failed,
       sum(t.cancelled)::bigint as cancelled,
       (sum(t.enqueued) - sum(t.succeeded) - sum(t.failed) - sum(t.cancelled))::bigint as unfinished,
       sum(t.attempts)::bigint as attempts, round(sum(t.cost_nanos) / 1e9, 9) as cost,
       round(sum(t.waste_nanos) / 1e9, 9) as waste, sum(t.unpriced)::bigint as unpriced_attempts,
       (select s.max_failed from sluice.stop_loss s where s.batch = t.batch) as max_failed,
       exists (select from sluice.pause p where p.kind = 'batch' and p.name = t.batch) as paused,
       (select p.reason from sluice.pause p where p.kind = 'batch' and p.name = t.batch) as pause_reason,
       round(sum(t.uncertain_nanos) / 1e9, 9) as uncertain_cost,
       sluice.cost_per_answer(sum(t.cost_nanos), sum(t.unpriced), sum(t.succeeded)) as cost_per_answer
  from sluice.totals t where t.batch <> '' group by t.batch;

comment on column sluice.batches.uncertain_cost is
    'Dollars that may have been spent on top of cost: the worst case of calls whose end is not known.';
comment on column sluice.batches.cost_per_answer is
    'Dollars per accepted answer: all that its jobs have cost, over those that succeeded. NULL: a price is unknown, or '
    'no job has succeeded. uncertain_cost may have been spent on top.';

create view sluice.cost_by_route as
select route, sum(enqueued)::bigint as jobs, sum(succeeded)::bigint as succeeded, sum(failed)::bigint as failed,
       sum(cancelled)::bigint as cancelled, sum(attempts)::bigint as attempts,
       round(sum(cost_nanos) / 1e9, 9) as cost, round(sum(waste_nanos) / 1e9, 9) as waste,
       round(sum(uncertain_nanos) / 1e9, 9) as uncertain_cost, sum(unpriced)::bigint as unpriced_attempts,
       sluice.cost_per_answer(sum(cost_nanos), sum(unpriced), sum(succeeded)) as cost_per_answer
  from sluice.totals group by route;

comment on view sluice.cost_by_route is
    'What the jobs of each route have cost, in dollars, whichever target was asked, and per job that succeeded.';
comment on column sluice.cost_by_route.cost_per_answer is
    'Dollars per accepted answer: all that the jobs of the route have cost, over those that succeeded. NULL: a price '
    'is unknown, or no job has succeeded. uncertain_cost may have been spent on top.';

grant execute on function sluice.cost_per_answer to public;
