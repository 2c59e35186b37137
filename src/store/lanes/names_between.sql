-- What the jobs with the numbers from $1 to $2 say of their lanes.
select b.id, b.route, b.project, b.batch, b.enqueued_by as login,
       -- A driver knows no infinity, and a deadline far away is none. (`least` of nothing is not nothing.)
       case when b.deadline < '9999-12-31 00:00:00+00'
            then greatest(b.deadline, '1970-01-01 00:00:00+00') end as deadline
  from sluice.job b where b.id between $1 and $2
