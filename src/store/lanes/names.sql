-- What these jobs say of their lanes, looked up one by one.
-- $1 jobs
select b.id, b.route, b.project, b.batch, b.enqueued_by as login,
       -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
       case when b.deadline < '9999-12-31 00:00:00+00'
            then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
  from unnest($1::bigint[]) w(id) cross join lateral (select * from sluice.job j where j.id = w.id limit 1) b
