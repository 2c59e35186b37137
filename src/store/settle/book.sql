-- Writes attempts to the ledger, and says which of them were not there before.
-- $1 to $45 the columns of an attempt: each a list with an entry for each attempt, in the order of the names below.
with w as (
    select * from unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::text[], $6::text[],
        $7::smallint[], $8::timestamptz[], $9::timestamptz[], $10::integer[], $11::integer[], $12::text[],
        $13::text[], $14::smallint[], $15::text[], $16::text[], $17::timestamptz[], $18::text[], $19::text[],
        $20::text[], $21::text[], $22::text[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[],
        $27::bigint[], $28::bigint[], $29::bigint[], $30::text[], $31::text[], $32::text[],
        $33::text[], $34::bigint[], $35::text[], $36::text[], $37::smallint[], $38::bigint[],
        $39::bigint[], $40::boolean[], $41::double precision[], $42::text[], $43::text[], $44::bigint[],
        $45::bigint[])
      as w(job_id, fence, number, round, provider, model, rung, started_at, ended_at, first_byte_ms, total_ms,
           class, detail, http_status, code, message, retry_at, request_id, model_served, finish, usage,
           usage_source, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
           cost_nanos, uncertain_nanos, price, decision, answer, service_tier, reported_cost_nanos,
           cost_source, notes, reask_of, computed_cost_nanos, cache_write_1h_tokens, cost_differs, confidence,
           instead_of, instead_why, instead_nanos, cache_saved_nanos)
), booked as (
    insert into sluice.attempt (job_id, fence, number, round, provider, model, rung, started_at, ended_at,
                first_byte_ms, total_ms, accepted, class, detail, http_status, code, message, retry_at,
                request_id, model_served, finish, usage, usage_source, input_tokens, cache_read_tokens,
                cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos, uncertain_nanos, price,
                decision, answer, service_tier, reported_cost_nanos, cost_source, notes, reask_of,
                computed_cost_nanos, cache_write_1h_tokens, cost_differs, confidence, instead_of, instead_why,
                instead_nanos, cache_saved_nanos)
         select job_id, fence, number, round, provider, model, rung, started_at, ended_at, first_byte_ms,
                total_ms, class is null, class, detail, http_status, code, message, retry_at, request_id,
                model_served, finish, usage::jsonb, usage_source, input_tokens, cache_read_tokens,
                cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos, uncertain_nanos,
                price::jsonb, decision::jsonb, answer::jsonb, service_tier, reported_cost_nanos, cost_source,
                notes::jsonb, reask_of, computed_cost_nanos, cache_write_1h_tokens, cost_differs, confidence,
                instead_of, instead_why, instead_nanos, cache_saved_nanos
           from w
    on conflict do nothing
    returning job_id, fence, number, round, provider, ended_at, cost_nanos, uncertain_nanos
), counted as materialized (
    -- Without a budget this is one look at an empty table.
    select sluice.settle_budgets(array_agg(b.job_id), array_agg(b.fence), array_agg(b.number), array_agg(b.round),
                                 array_agg(b.provider), array_agg(b.ended_at), array_agg(b.cost_nanos),
                                 array_agg(b.uncertain_nanos))
      from booked b
     where exists (select from sluice.budget)
    having count(*) > 0
)
select fence as "fence!", number as "number!" from booked where (select count(*) from counted) >= 0
