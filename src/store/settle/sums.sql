-- Adds to the sums what one settlement has booked and ended.
-- $1 to $20 are lists with an entry for each row of sums, in the order of the names below.
insert into sluice.tally (hour, route, project, batch, provider, model, class, detail, succeeded, failed, fallbacks,
            attempts, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced,
            total_ms)
select date_trunc('hour', s.at), s.route, s.project, s.batch, s.provider, s.model, s.class, s.detail, s.succeeded,
       s.failed, s.fallbacks, s.attempts, s.input_tokens, s.cached_tokens, s.output_tokens, s.cost_nanos,
       s.waste_nanos, s.uncertain_nanos, s.unpriced, s.total_ms
  from unnest($1::timestamptz[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[],
              $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[])
       as s(at, route, project, batch, provider, model, class, detail, succeeded, failed, fallbacks, attempts,
            input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos, uncertain_nanos, unpriced, total_ms)
