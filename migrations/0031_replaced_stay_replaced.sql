-- Jobs whose place another file took are not put back by a retry of their batch: their answers are not wanted any more.
--
-- Workers of earlier versions go on beside it. The function takes and returns the same.
set local lock_timeout = '5s';

create or replace function sluice.retry(batch text) returns bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select count(*) from (
        select j.id from sluice.job j join sluice.result r on r.job_id = j.id
         where j.batch = $1
           and (r.state = 'failed' or r.state = 'cancelled' and r.error is distinct from 'replaced')
         order by j.id) ended
     where sluice.retry(ended.id);
$$;

comment on function sluice.retry(text) is
    'Retries every failed or cancelled job of a batch, but for those whose place another file took; returns how many.';

comment on function sluice.retry(text, text) is
    'Retries every failed or cancelled job of a batch, but for those whose place another file took, or every failed '
    'job of a route; returns how many.';
