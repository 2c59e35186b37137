-- How the jobs from number $FIRST to $LAST of $JOBS ended: one of ten failed. The settlements of the ledger count an
-- accepted attempt as a job that succeeded; the sums of this statement bring that in line with the results.
insert into sluice.result (job_id, fence, state, finished_at, attempts, provider, model, rung, error_class, error,
            cost_nanos, input_tokens, output_tokens, response)
select j.id, j.id, case when e.failed then 'failed' else 'succeeded' end, j.created_at + interval '2 s', 2,
       'provider_' || j.id / 50 % 4 * 3 % 4, 'model-' || j.id / 50 % 4 * 3, 0,
       case when e.failed then (array['timeout', 'rate_limit', 'soft_failure'])[1 + j.id % 3] end,
       case when e.failed then 'the provider says no' end, 2000 + j.id % 1000, 100 + j.id % 900, 20 + j.id % 300,
       case when not e.failed then jsonb_build_object('content', 'an answer') end
  from sluice.job j cross join lateral (select j.id * 2654435761 % 1000 >= 900 as failed) e
 where j.id between $FIRST and $LAST;
insert into sluice.tally (hour, route, project, batch, login, enqueued, succeeded, failed)
select date_trunc('hour', max(j.created_at)), j.route, j.project, j.batch, j.enqueued_by, count(*),
       count(*) filter (where r.state = 'succeeded') - sum(a.accepted), count(*) filter (where r.state = 'failed')
  from sluice.job j join sluice.result r on r.job_id = j.id
       join (select job_id, count(*) filter (where accepted) as accepted from sluice.attempt
              where job_id between $FIRST and $LAST group by 1) a on a.job_id = j.id
 where j.id between $FIRST and $LAST
 group by j.route, j.project, j.batch, j.enqueued_by
