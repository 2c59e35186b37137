-- A rung whose answer was rejected for its form may be asked once more, with that answer and its fault named. The
-- ledger says which calls were made so.
--
-- Workers of earlier versions name no fault, and the column stays empty in the rows that they write.
set local lock_timeout = '5s';

alter table sluice.attempt add column reask_of smallint;

comment on column sluice.attempt.reask_of is
    'The call was a re-ask: it went on with the rejected answer of the attempt of this number, and named its fault.';

create or replace view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms,
       a.total_ms, a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id,
       a.model_served, a.finish, a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens,
       a.output_tokens, a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost,
       round(a.uncertain_nanos / 1e9, 9) as uncertain_cost, a.price, a.decision, a.answer, j.route, j.project, j.batch,
       a.placeholder, a.service_tier, round(a.reported_cost_nanos / 1e9, 9) as reported_cost, a.cost_source, a.notes,
       a.reask_of
  from sluice.attempt a left join sluice.job j on j.id = a.job_id and a.round >= 0
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.attempts.reask_of is
    'The call was a re-ask: it went on with the rejected answer of the attempt of this number, and named its fault.';

create view sluice.reasks as
select provider, model, count(*) as reasks, count(*) filter (where accepted) as accepted,
       round(sum(cost_nanos) / 1e9, 9) as cost, count(*) filter (where cost_nanos is null) as unpriced
  from sluice.attempt where reask_of is not null and ended_at >= now() - interval '1 day' group by provider, model;

comment on view sluice.reasks is
    'Calls of the last 24 hours that named the fault of a rejected answer, by provider and model: how many, how many '
    'of them brought an answer that was accepted, and their cost in dollars.';
