-- Adds to the sums what one settlement has booked and ended; says whether there are budgets.
-- $1 to $36 are lists with an entry for each row of sums, in the order of the names below.
with added as (
    insert into sluice.tally (hour, route, project, batch, login, provider, model, class, detail, code, instead_of,
                instead_why, succeeded, failed, fallbacks, repaired, attempts, input_tokens, cached_tokens,
                output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms, reasks,
                reask_cost_nanos, reask_unpriced, extra_nanos, extra_unknown, cache_write_tokens,
                cache_priced_tokens, cache_saved_nanos, latency, first_byte, sample)
    select date_trunc('hour', s.at), s.route, s.project, s.batch, s.login, s.provider, s.model, s.class, s.detail,
           s.code, s.instead_of, s.instead_why, s.succeeded, s.failed, s.fallbacks, s.repaired, s.attempts,
           s.input_tokens, s.cached_tokens, s.output_tokens, s.cost_nanos, s.waste_nanos, s.uncertain_nanos,
           s.unpriced, s.total_ms, s.reasks, s.reask_cost_nanos, s.reask_unpriced, s.extra_nanos, s.extra_unknown,
           s.cache_write_tokens, s.cache_priced_tokens, s.cache_saved_nanos, s.latency::bigint[],
           s.first_byte::bigint[], s.sample
      from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                  $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[],
                  $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[],
                  $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[],
                  $27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[], $32::bigint[],
                  $33::bigint[], $34::text[], $35::text[], $36::text[])
           as s(at, route, project, batch, login, provider, model, class, detail, code, instead_of, instead_why,
                succeeded, failed, fallbacks, repaired, attempts, input_tokens, cached_tokens, output_tokens,
                cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms, reasks, reask_cost_nanos,
                reask_unpriced, extra_nanos, extra_unknown, cache_write_tokens, cache_priced_tokens,
                cache_saved_nanos, latency, first_byte, sample)
)
select exists (select from sluice.budget) as "has_budgets!"
