-- A batch may have a stop-loss: it is paused when more than that share of its jobs fails.
--
-- A row of sluice.stop_loss exists only for a batch that has one. A settlement with a failed job of such a batch marks
-- the row as due, at most once a second; upkeep looks at due rows alone, and counts in the sums that are there anyway.
-- Workers of earlier versions mark nothing, so jobs that fail with them are counted at the next failure elsewhere.
set local lock_timeout = '5s';

create table sluice.stop_loss (
    batch         text primary key,
    max_failed    numeric not null check (max_failed between 0 and 1),
    -- What had ended and failed when it was resumed: that is forgiven.
    ended_before  bigint not null default 0,
    failed_before bigint not null default 0,
    resumed_at    timestamptz,
    -- Since when the stop-loss itself holds the batch.
    stopped_at    timestamptz,
    -- Whether jobs of it may have failed since it was counted last, and when that was noted.
    due           boolean not null default true,
    failed_at     timestamptz not null default now()
) with (fillfactor = 70);

create index stop_loss_due on sluice.stop_loss (batch) where due;

comment on table sluice.stop_loss is
    'Batches that are paused when more than max_failed of their ended jobs failed. Set by sluice.stop_loss.';
comment on column sluice.stop_loss.max_failed is 'The share of ended jobs that may fail, from 0 to 1.';
comment on column sluice.stop_loss.stopped_at is 'Since when the batch is paused for it. NULL: it is not.';

create function sluice.stop_loss(batch text, max_failed numeric, keep boolean default false) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(stop_loss.batch, '') = '' then
        raise invalid_parameter_value using message = 'expected the name of a batch';
    elsif octet_length(stop_loss.batch) > sluice.most_bytes('batch') then
        raise invalid_parameter_value using
            message = format('batch: is %s bytes long; expected at most %s', octet_length(stop_loss.batch),
                             sluice.most_bytes('batch'));
    elsif stop_loss.max_failed is null then
        delete from sluice.stop_loss s where s.batch = stop_loss.batch;
        return found;
    elsif not stop_loss.max_failed between 0 and 1 then
        raise invalid_parameter_value using
            message = format('max_failed: is %s; expected a share from 0 to 1, such as 0.05', stop_loss.max_failed),
            hint = 'NULL: the batch has no stop-loss.';
    elsif stop_loss.max_failed <> round(stop_loss.max_failed, 6) then
        raise invalid_parameter_value using
            message = format('max_failed: is %s; expected at most six decimals', stop_loss.max_failed);
    end if;
    if stop_loss.keep then
        insert into sluice.stop_loss (batch, max_failed) values (stop_loss.batch, stop_loss.max_failed)
        on conflict do nothing;
    else
        insert into sluice.stop_loss as s (batch, max_failed) values (stop_loss.batch, stop_loss.max_failed)
        on conflict on constraint stop_loss_pkey
            do update set max_failed = excluded.max_failed, due = true, failed_at = now();
    end if;
    return found;
end
$$;

comment on function sluice.stop_loss is
    'Pauses the batch when more than this share of its ended jobs failed (0.05: one in twenty); NULL: no longer. With '
    'keep, a batch that has a stop-loss keeps its own. True when something was set or removed.';

-- What failed before a batch was resumed is not counted again.
create or replace function sluice.resume(kind text, name text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    was_paused boolean;
begin
    if resume.kind is null or resume.kind not in ('route', 'project', 'batch', 'provider') then
        raise invalid_parameter_value using
            message = format('%L cannot be resumed: expected route, project, batch or provider', resume.kind),
            hint = 'A single job is resumed by its number: select sluice.resume(5).';
    end if;
    if resume.kind = 'batch' then
        -- This row first: the worker that counts holds it while it pauses.
        perform from sluice.stop_loss s where s.batch = resume.name for update;
    end if;
    delete from sluice.pause p where p.kind = resume.kind and p.name = resume.name;
    was_paused := found;
    if resume.kind = 'batch' then
        update sluice.stop_loss s
           set ended_before = t.ended, failed_before = t.failed, resumed_at = now(), stopped_at = null, due = true,
               failed_at = now()
          from (select coalesce(sum(x.succeeded + x.failed), 0) as ended, coalesce(sum(x.failed), 0) as failed
                  from sluice.totals x where x.batch <> '' and x.batch = resume.name) t
         where s.batch = resume.name and s.stopped_at is not null;
    end if;
    return was_paused;
end
$$;

-- A job that failed before its batch was resumed counts anew when it is retried.
create or replace function sluice.retry(job bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    spec record;
    ended record;
    last_round smallint;
    tried smallint;
begin
    select j.route, j.project, j.batch, j.enqueued_by, j.priority into spec from sluice.job j where j.id = retry.job;
    if not found then
        raise no_data_found using message = format('there is no job %s', retry.job);
    end if;
    -- Before the result, so that two who retry jobs of one batch wait here, and hold nothing that the other needs.
    perform from sluice.stop_loss s where s.batch = spec.batch and s.failed_before > 0 for update;
    delete from sluice.result r where r.job_id = retry.job and r.state in ('failed', 'cancelled')
    returning r.state, r.provider, r.model, r.error_class, r.round, r.finished_at into ended;
    if not found then
        return false;
    end if;
    select greatest(coalesce(max(a.round), 0), ended.round), coalesce(max(a.number), 0) into last_round, tried
      from sluice.attempt a where a.job_id = retry.job and a.round >= 0;
    -- A new round: earlier attempts stay on the ledger and no longer count towards max_attempts.
    insert into sluice.ready (flow, prio, job_id, attempts, round)
         values (sluice.flow_of(spec.route, spec.project, spec.batch, spec.enqueued_by), -spec.priority, retry.job,
                tried, last_round + 1);
    insert into sluice.tally (hour, route, project, batch, provider, model, class, failed, cancelled)
         values (date_trunc('hour', now()), spec.route, spec.project, coalesce(spec.batch, ''),
                 coalesce(ended.provider, ''), coalesce(ended.model, ''), coalesce(ended.error_class, ''),
                 case ended.state when 'failed' then -1 else 0 end,
                 case ended.state when 'cancelled' then -1 else 0 end);
    if ended.state = 'failed' then
        update sluice.stop_loss s
           set ended_before = greatest(s.ended_before - 1, 0), failed_before = greatest(s.failed_before - 1, 0)
         where s.batch = spec.batch and s.failed_before > 0 and ended.finished_at < s.resumed_at;
    end if;
    return true;
end
$$;

create or replace view sluice.batches as
select t.batch, min(t.project) as project, min(t.hour) as first_hour,
       sum(t.enqueued)::bigint as jobs, sum(t.succeeded)::bigint as succeeded, sum(t.failed)::bigint as failed,
       sum(t.cancelled)::bigint as cancelled,
       (sum(t.enqueued) - sum(t.succeeded) - sum(t.failed) - sum(t.cancelled))::bigint as unfinished,
       sum(t.attempts)::bigint as attempts, round(sum(t.cost_nanos) / 1e9, 9) as cost,
       round(sum(t.waste_nanos) / 1e9, 9) as waste, sum(t.unpriced)::bigint as unpriced_attempts,
       (select s.max_failed from sluice.stop_loss s where s.batch = t.batch) as max_failed,
       exists (select from sluice.pause p where p.kind = 'batch' and p.name = t.batch) as paused,
       (select p.reason from sluice.pause p where p.kind = 'batch' and p.name = t.batch) as pause_reason
  from sluice.totals t where t.batch <> '' group by t.batch;

comment on column sluice.batches.max_failed is
    'The share of ended jobs that may fail before the batch is paused. NULL: it has no stop-loss.';
comment on column sluice.batches.pause_reason is
    'Why it is paused, if a reason was given; that of its stop-loss begins with "stop-loss:".';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.stop_loss from public;
