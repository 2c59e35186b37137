-- Ends jobs whose claims hold. Says which claims held, which jobs it has ended, and when.
-- $1 to $19 are lists with an entry for each ending, in the order of the names below.
with w as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::smallint[],
        $7::boolean[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
        $14::text[], $15::text[], $16::smallint[], $17::bigint[], $18::double precision[], $19::boolean[])
      as w(job_id, fence, attempts, provider, model, rung, repaired, error_class, error, cost_nanos,
           uncertain_nanos, input_tokens, output_tokens, request_id, response, round, answered_from,
           confidence, low_confidence)
), held as (
    delete from sluice.inflight i using w where i.job_id = any (array[w.job_id]) and i.fence = w.fence
    returning i.job_id, i.fence, i as claim, w.error_class
), named as materialized (
    -- A fault of ours in the middle of a call: no worker will say that it was made.
    select sluice.book_open_call(claim, 'fault') from held where error_class = 'abandoned'
), done as (
    insert into sluice.result (job_id, fence, state, attempts, provider, model, rung, repaired, error_class,
                error, cost_nanos, uncertain_nanos, input_tokens, output_tokens, request_id, response, round,
                answered_from, confidence, low_confidence)
         select w.job_id, w.fence, case when w.error_class is null then 'succeeded' else 'failed' end, attempts,
                w.provider, w.model, w.rung, w.repaired, w.error_class, w.error, w.cost_nanos,
                w.uncertain_nanos, w.input_tokens, w.output_tokens, w.request_id, w.response::jsonb, w.round,
                w.answered_from, w.confidence, w.low_confidence
           from w join held h on h.job_id = w.job_id and h.fence = w.fence
    on conflict do nothing
    returning fence
)
-- `in` is looked up by hash. A join of the two would go through all of `done` for each claim: both are taken for short.
select h.fence as "fence!", h.fence in (select d.fence from done d) as "ended!", now() as "at!"
  from held h
 where (select count(*) from named) >= 0
 union all
-- Sent before, and that commit went through after all: the result stands under our own fence.
select r.fence, false, now() from w join sluice.result r on r.job_id = any (array[w.job_id]) and r.fence = w.fence
 -- Looked up only where claims are missing: for each ending that is a fifth of what this statement takes.
 where (select count(*) from held) < cardinality($1)
