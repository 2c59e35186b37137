-- The attempts of the jobs from number $1 to $2 whose cost can be computed, or is not known.
-- $3 provider, $4 model, $5 route, $6 batch, $7 project, $8 and $9 the time in which they ended; null: any
select a.job_id, a.fence, a.number, a.provider, a.model, a.model_served, a.service_tier, a.started_at, a.class,
       a.usage_source, a.input_tokens, a.cache_read_tokens, a.cache_write_tokens, a.cache_write_1h_tokens,
       a.output_tokens, a.reasoning_tokens, a.cost_nanos, a.computed_cost_nanos, a.reported_cost_nanos, a.cost_source,
       a.price::text as price, a.cost_differs, a.uncertain_nanos, a.cache_saved_nanos,
       case when a.cache_write_tokens > 0 and a.cache_write_1h_tokens is null then a.usage::text end as usage_raw
  from sluice.attempt a join sluice.job j on j.id = a.job_id
 where a.job_id between $1 and $2
   -- A call of a lost job (round -1) is none of the job that has its number, and what stands in the place of a call
   -- may be replaced by the call itself.
   and a.round >= 0 and not a.placeholder
   and (a.cost_nanos is null or a.cost_source is not null or a.cost_nanos > 0)
   and ($3::text is null or a.provider = $3)
   and ($4::text is null or a.model = $4 or split_part(a.model, '@', 1) = $4)
   and ($5::text is null or j.route = $5)
   and ($6::text is null or j.batch = $6)
   and ($7::text is null or j.project = $7)
   and ($8::timestamptz is null or a.ended_at >= $8)
   and ($9::timestamptz is null or a.ended_at < $9)
 order by a.job_id desc, a.fence, a.number
