-- What settlements of two hundred calls each add to the sums, for the jobs from number $FIRST to $LAST.
insert into sluice.tally (hour, route, project, batch, login, provider, model, class, detail, code, instead_of,
            instead_why, succeeded, attempts, input_tokens, cached_tokens, output_tokens, cost_nanos, waste_nanos,
            uncertain_nanos, unpriced, total_ms, reasks, reask_cost_nanos, reask_unpriced, extra_nanos, extra_unknown,
            latency, first_byte, sample)
select date_trunc('hour', a.ended_at), j.route, j.project, j.batch, j.enqueued_by, a.provider, a.model,
       coalesce(a.class, ''), coalesce(a.detail, ''), sluice.failure_code(a.class, a.code, a.http_status),
       case when a.accepted then coalesce(a.instead_of, '') else '' end,
       case when a.accepted then coalesce(a.instead_why, '') else '' end, count(*) filter (where a.accepted), count(*),
       sum(a.input_tokens + a.cache_read_tokens + a.cache_write_tokens), sum(a.cache_read_tokens),
       sum(a.output_tokens), coalesce(sum(a.cost_nanos), 0),
       coalesce(sum(a.cost_nanos) filter (where not a.accepted), 0), sum(a.uncertain_nanos),
       count(*) - count(a.cost_nanos), sum(a.total_ms), count(a.reask_of),
       coalesce(sum(a.cost_nanos) filter (where a.reask_of is not null), 0),
       count(a.reask_of) - count(a.cost_nanos) filter (where a.reask_of is not null),
       coalesce(sum(a.cost_nanos - a.instead_nanos) filter (where a.accepted), 0),
       count(a.instead_of) filter (where a.accepted)
         - count(a.cost_nanos - a.instead_nanos) filter (where a.accepted),
       coalesce(array_agg((sluice.latency_class(a.total_ms)::bigint << 40) + 1) filter (where a.accepted), '{}'),
       coalesce(array_agg((sluice.latency_class(a.first_byte_ms)::bigint << 40) + 1) filter (where a.accepted), '{}'),
       coalesce(min(a.message), '')
  from sluice.attempt a join sluice.job j on j.id = a.job_id
 where a.job_id between $FIRST and $LAST and j.id between $FIRST and $LAST
 group by j.id / 100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
