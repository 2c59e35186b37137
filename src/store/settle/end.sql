-- Ends jobs whose claims hold, counts them into the sums, and says which claims held.
-- $1 to $20 are lists with an entry for each ending, in the order of the names below.
with w as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::smallint[],
        $7::boolean[], $8::boolean[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
        $14::bigint[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::smallint[])
      as w(job_id, fence, attempts, provider, model, rung, after_fallback, repaired, error_class, error,
           cost_nanos, uncertain_nanos, input_tokens, output_tokens, request_id, response, route, project, batch,
           round)
), held as (
    delete from sluice.inflight i using w where i.job_id = any (array[w.job_id]) and i.fence = w.fence
    returning i.job_id, i.fence, i as claim, w.error_class
), named as materialized (
    -- A fault of ours in the middle of a call: nobody else says that it was made.
    select sluice.book_open_call(claim, 'fault') from held where error_class = 'abandoned'
), done as (
    insert into sluice.result (job_id, fence, state, attempts, provider, model, rung, repaired, error_class,
                error, cost_nanos, uncertain_nanos, input_tokens, output_tokens, request_id, response, round)
         select w.job_id, w.fence, case when w.error_class is null then 'succeeded' else 'failed' end, attempts,
                w.provider, w.model, w.rung, w.repaired, w.error_class, w.error, w.cost_nanos,
                w.uncertain_nanos, w.input_tokens, w.output_tokens, w.request_id, w.response::jsonb, w.round
           from w join held h on h.job_id = w.job_id and h.fence = w.fence
    on conflict do nothing
    returning job_id, fence
), told as (
    insert into sluice.tally (hour, route, project, batch, provider, model, class, succeeded, failed, fallbacks)
         select date_trunc('hour', now()), w.route, w.project, w.batch, coalesce(w.provider, ''),
                coalesce(w.model, ''), coalesce(w.error_class, ''), count(*) filter (where w.error_class is null),
                count(*) filter (where w.error_class is not null),
                count(*) filter (where w.error_class is null and w.after_fallback)
           from done join w using (job_id, fence)
          group by 1, 2, 3, 4, 5, 6, 7
)
select fence as "fence!" from held where (select count(*) from named) >= 0
 union
-- Sent before, and that commit went through after all: the result stands under our own fence.
select r.fence from w join sluice.result r on r.job_id = any (array[w.job_id]) and r.fence = w.fence
