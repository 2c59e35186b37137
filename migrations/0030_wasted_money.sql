-- A stop-loss may also be a share of money: the batch is paused when more than that share of what its calls have cost
-- went to calls whose answer was not accepted.
--
-- The columns have defaults, and workers of earlier versions go on as before: they neither mark nor judge waste, and
-- see a share of failed jobs of 1 (never) where a batch has the other share alone.
set local lock_timeout = '5s';

alter table sluice.stop_loss
    add column max_wasted   numeric check (max_wasted between 0 and 1),
    -- What its calls had cost when it was resumed, and what of it was wasted on how many calls: that is forgiven.
    add column cost_before  bigint not null default 0,
    add column waste_before bigint not null default 0,
    add column waste_calls_before bigint not null default 0;

comment on table sluice.stop_loss is
    'Batches that are paused when more than max_failed of their ended jobs failed, or more than max_wasted of their '
    'money was wasted. Set by sluice.stop_loss and sluice.stop_waste.';
comment on column sluice.stop_loss.max_wasted is
    'The share of the cost that may go to calls whose answer was not accepted, from 0 to 1. NULL: any.';

-- As in 0018, and a share of waste stays when the share of failed jobs is taken away.
create or replace function sluice.stop_loss(batch text, max_failed numeric, keep boolean default false) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(stop_loss.batch, '') = '' then
        raise invalid_parameter_value using message = 'expected the name of a batch';
    elsif octet_length(stop_loss.batch) > sluice.most_bytes('batch') then
        raise invalid_parameter_value using
            message = format('batch: is %s bytes long; expected at most %s', octet_length(stop_loss.batch),
                             sluice.most_bytes('batch'));
    elsif stop_loss.max_failed is null then
        update sluice.stop_loss s set max_failed = 1
         where s.batch = stop_loss.batch and s.max_wasted is not null and s.max_failed < 1;
        if found then
            return true;
        end if;
        delete from sluice.stop_loss s where s.batch = stop_loss.batch and s.max_wasted is null;
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

create function sluice.stop_waste(batch text, max_wasted numeric, keep boolean default false) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(stop_waste.batch, '') = '' then
        raise invalid_parameter_value using message = 'expected the name of a batch';
    elsif octet_length(stop_waste.batch) > sluice.most_bytes('batch') then
        raise invalid_parameter_value using
            message = format('batch: is %s bytes long; expected at most %s', octet_length(stop_waste.batch),
                             sluice.most_bytes('batch'));
    elsif stop_waste.max_wasted is null then
        -- 1 of all jobs may fail: that is no stop-loss either.
        delete from sluice.stop_loss s
         where s.batch = stop_waste.batch and s.max_wasted is not null and s.max_failed = 1;
        if found then
            return true;
        end if;
        update sluice.stop_loss s set max_wasted = null
         where s.batch = stop_waste.batch and s.max_wasted is not null;
        return found;
    elsif not stop_waste.max_wasted between 0 and 1 then
        raise invalid_parameter_value using
            message = format('max_wasted: is %s; expected a share from 0 to 1, such as 0.3', stop_waste.max_wasted),
            hint = 'NULL: any share may be wasted.';
    elsif stop_waste.max_wasted <> round(stop_waste.max_wasted, 6) then
        raise invalid_parameter_value using
            message = format('max_wasted: is %s; expected at most six decimals', stop_waste.max_wasted);
    end if;
    insert into sluice.stop_loss as s (batch, max_failed, max_wasted)
         values (stop_waste.batch, 1, stop_waste.max_wasted)
    on conflict on constraint stop_loss_pkey
        do update set max_wasted = excluded.max_wasted, due = true, failed_at = now()
             where not stop_waste.keep or s.max_wasted is null;
    return found;
end
$$;

comment on function sluice.stop_waste is
    'Pauses the batch when more than this share of what its calls have cost went to calls whose answer was not '
    'accepted (0.3: three tenths); NULL: no longer. With keep, a batch that has such a share keeps its own. True when '
    'something was set or removed.';

revoke execute on function sluice.stop_waste from public;

-- As in 0018, and what was wasted before is not counted again either.
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
           set ended_before = t.ended, failed_before = t.failed, cost_before = t.cost, waste_before = t.waste,
               waste_calls_before = t.waste_calls, resumed_at = now(), stopped_at = null, due = true,
               failed_at = now()
          from (select coalesce(sum(x.succeeded + x.failed), 0) as ended, coalesce(sum(x.failed), 0) as failed,
                       sluice.capped(coalesce(sum(x.cost_nanos), 0)) as cost,
                       sluice.capped(coalesce(sum(x.waste_nanos), 0)) as waste,
                       coalesce(sum(x.attempts) filter (where x.waste_nanos > 0), 0) as waste_calls
                  from sluice.totals x where x.batch <> '' and x.batch = resume.name) t
         where s.batch = resume.name and s.stopped_at is not null;
    end if;
    return was_paused;
end
$$;
