-- Ends claims that hold, before the results of their jobs are written; says which those are, when that is, and whether
-- there are budgets.
-- For each ending $1 its job, $2 its fence, $3 whether a fault of ours has ended the job.
with w as (
    select * from unnest($1::bigint[], $2::bigint[], $3::boolean[]) as w(job_id, fence, is_fault)
), held as (
    delete from sluice.inflight i using w where i.job_id = any (array[w.job_id]) and i.fence = w.fence
    returning i.fence, i.attempts, i.round, w.is_fault, case when w.is_fault then i end as claim
), named as materialized (
    -- A fault of ours in the middle of a call: no worker will say that it was made.
    select sluice.book_open_call(claim, 'fault') from held where is_fault
)
select h.fence as "fence!", now() as "at!",
       -- A call under an earlier claim of the job would count among its attempts. An operator's retry counts anew.
       h.attempts = 0 and h.round = 0 as "is_first!",
       exists (select from sluice.budget) as "has_budgets!"
  from held h
 where (select count(*) from named) >= 0
