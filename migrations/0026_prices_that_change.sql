-- What a provider says of a cost is booked where it says something, and what was computed is kept beside it. A cost can
-- be computed again from the tokens, with prices as they are known later: the attempt keeps what it said before.
--
-- Columns are added at the end, and none has to be written: workers of earlier versions book attempts as before. Their
-- computed cost is unknown here, and `sluice reprice` fills it in.
set local lock_timeout = '5s';

alter table sluice.attempt
    add column computed_cost_nanos   bigint,
    add column cache_write_1h_tokens bigint,
    add column cost_differs          boolean not null default false,
    add column repriced_at           timestamptz,
    add column repriced_from         jsonb;

comment on column sluice.attempt.computed_cost_nanos is
    'Tokens times the price beside them, in billionths of a dollar, whatever the provider says it cost. NULL: no price '
    'was known, or nothing was charged.';
comment on column sluice.attempt.cost_source is
    'Where the cost comes from: reported (the provider''s own figure) or price (tokens times the price beside it). '
    'NULL when the cost is unknown or nothing was charged.';
comment on column sluice.attempt.reported_cost_nanos is
    'What the provider says the call cost, in billionths of a dollar. It is the cost where it is there.';
comment on column sluice.attempt.cache_write_1h_tokens is
    'The part of cache_write_tokens that was written for an hour. NULL: booked by an earlier version; usage has it.';
comment on column sluice.attempt.cost_differs is
    'The provider''s figure and the computed one differed by more than prices.reported_difference allows.';
comment on column sluice.attempt.repriced_at is 'When its cost was computed again for the last time.';
comment on column sluice.attempt.repriced_from is
    'What it said of its cost before: a list, the latest state last. The first and the latest fifteen are kept.';

create or replace view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms,
       a.total_ms, a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id,
       a.model_served, a.finish, a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens,
       a.output_tokens, a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost,
       round(a.uncertain_nanos / 1e9, 9) as uncertain_cost, a.price, a.decision, a.answer, j.route, j.project, j.batch,
       a.placeholder, a.service_tier, round(a.reported_cost_nanos / 1e9, 9) as reported_cost, a.cost_source, a.notes,
       a.reask_of, round(a.computed_cost_nanos / 1e9, 9) as computed_cost, a.cache_write_1h_tokens, a.cost_differs,
       a.repriced_at, a.repriced_from
  from sluice.attempt a left join sluice.job j on j.id = a.job_id and a.round >= 0
 where (select sluice.sees_all()) or j.enqueued_by = session_user;

comment on column sluice.attempts.computed_cost is
    'Dollars by the tokens and the price, whatever the provider says. NULL: no price was known, or nothing was '
    'charged.';
comment on column sluice.attempts.cost_differs is
    'The provider''s figure and the computed one differed by more than the configuration allows.';
comment on column sluice.attempts.repriced_from is
    'What it said of its cost before it was computed again, the latest last.';

-- What an attempt says of its cost, as `repriced_from` keeps it.
create function sluice.repriced_from(earlier jsonb, cost_nanos bigint, computed_cost_nanos bigint,
                                     cost_source text, price jsonb, until timestamptz) returns jsonb
    language sql immutable parallel safe
    return (select case when jsonb_array_length(k.states) > 16 then k.states - 1 else k.states end
              from (select coalesce(earlier, '[]'::jsonb) || jsonb_build_array(jsonb_build_object(
                           'cost_nanos', cost_nanos, 'computed_cost_nanos', computed_cost_nanos,
                           'cost_source', cost_source, 'price', price, 'until', until)) as states) k);

comment on function sluice.repriced_from is
    'For sluice reprice: the list of what an attempt has said of its cost, with what it says until this instant.';

revoke execute on function sluice.repriced_from from public;
