-- Jobs from number $FIRST to $LAST of $JOBS, each with two calls, spread over thirty days: four routes of three
-- targets, six projects of three logins, a batch for every fifty jobs. Half of the first calls are accepted; of the
-- others some are refused, some time out, and some bring answers that are rejected, and the second call goes to the
-- next target.
set session_replication_role = replica;
insert into sluice.job (id, route, project, batch, enqueued_by, request, created_at) overriding system value
select g, 'route_' || g / 50 % 4, 'project-' || g / 200 % 6, 'batch-' || g / 50, 'login-' || g / 200 % 6 / 2, '{}',
       date_trunc('hour', now()) - interval '30 days' + interval '30 days' * (g::double precision / $JOBS)
  from generate_series($FIRST, $LAST) g;
with drawn as (
    select j.id, j.created_at, n.number, j.id / 50 % 4 as route, j.id * 2654435761 % 1000 as dice,
           (j.id * 40503 + n.number * 9973) % 65536 as other,
           case when n.number = 1 and j.id * 2654435761 % 1000 >= 500
                then (array['rate_limit', 'timeout', 'server_error', 'soft_failure', 'soft_failure'])
                     [1 + j.id * 2654435761 % 5] end as class
      from sluice.job j cross join (values (1), (2)) n(number)
     where j.id between $FIRST and $LAST
)
insert into sluice.attempt (job_id, fence, number, round, provider, model, rung, started_at, ended_at, first_byte_ms,
            total_ms, accepted, class, detail, http_status, code, message, usage_source, input_tokens,
            cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nanos, uncertain_nanos,
            cost_source, reask_of, instead_of, instead_why, instead_nanos)
select d.id, d.id, d.number, 0, 'provider_' || t.target % 4, 'model-' || t.target, d.number - 1, d.created_at,
       d.created_at + interval '1 s', 100 + d.other % 400, 400 + d.other * d.other % 9000, d.class is null, d.class,
       case d.class when 'soft_failure' then (array['empty', 'not_json', 'schema_violation'])[1 + d.other % 3] end,
       case d.class when 'rate_limit' then 429 when 'server_error' then 503 end,
       case d.class when 'rate_limit' then (array['tokens', 'requests'])[1 + d.other % 2] end,
       case when d.class <> 'soft_failure' then 'the provider says no' end, 'provider', 100 + d.other % 900,
       d.other % 50, 0, 20 + d.other % 300, 0, case when d.other % 997 > 0 then 1000 + d.other end, d.other % 3,
       'price',
       case when d.number = 2 and d.dice % 7 = 0 then 1 end,
       case when d.number = 2 and d.dice >= 500 then f.target end,
       case when d.number = 2 and d.dice >= 500
            then (array['rate_limit', 'timeout', 'server_error', 'soft_failure', 'soft_failure'])[1 + d.dice % 5] end,
       case when d.number = 2 and d.dice >= 500 and d.other % 991 > 0 then 900 + d.other end
  from drawn d cross join lateral (select d.route * 3 + (d.number - 1) * (d.dice >= 500)::integer as target) t
       cross join lateral (select 'provider_' || d.route * 3 % 4 || '/model-' || d.route * 3 as target) f
