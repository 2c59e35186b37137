-- What an answer came with: the tier that served it, what the provider says it cost, and what was mended, cut or
-- doubted.
--
-- New columns only, all of which may be empty, so workers of the version before go on beside it. Adding them takes no
-- rewrite of the table.

alter table sluice.attempt
    add column service_tier        text,
    add column reported_cost_nanos bigint,
    add column cost_source         text check (cost_source in ('price', 'reported')),
    add column notes               jsonb;

comment on column sluice.attempt.service_tier is
    'The tier of service that the provider says it used (flex, priority, default, …). Its price was used.';
comment on column sluice.attempt.reported_cost_nanos is
    'What the provider says the call cost, in billionths of a dollar. Used as the cost only where no price is known.';
comment on column sluice.attempt.cost_source is
    'Where the cost comes from: price (tokens times the price beside it) or reported (the provider''s own figure). NULL when the cost is unknown or nothing was charged.';
comment on column sluice.attempt.notes is
    'What was mended to read the answer, cut from it, or not believed of it: a list of texts.';
comment on column sluice.attempt.answer is
    'The answer that was rejected, or the one that was repaired as it came. One that was accepted as it is stands in the result.';

-- The columns of before keep their places; new ones stand behind them.
create or replace view sluice.attempts with (security_barrier) as
select a.job_id, a.number, a.round, a.provider, a.model, a.rung, a.started_at, a.ended_at, a.first_byte_ms, a.total_ms,
       a.accepted, a.class, a.detail, a.http_status, a.code, a.message, a.retry_at, a.request_id, a.model_served, a.finish,
       a.usage, a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens, a.output_tokens,
       a.reasoning_tokens, round(a.cost_nanos / 1e9, 9) as cost, round(a.uncertain_nanos / 1e9, 9) as uncertain_cost,
       a.price, a.decision, a.answer, j.route, j.project, j.batch, a.placeholder, a.service_tier,
       round(a.reported_cost_nanos / 1e9, 9) as reported_cost, a.cost_source, a.notes
  from sluice.attempt a join sluice.job j on j.id = a.job_id
 where (select sluice.sees_all()) or j.enqueued_by = session_user;
