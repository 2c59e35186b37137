-- Each enqueue by command has a number, under which what it added can be cancelled.
--
-- Jobs need no column for it: all jobs of one transaction have the same created_at, the instant at which it began, so
-- that instant tells them, within the batch, the login, and the numbers that the sequence gave meanwhile. Enqueueing
-- costs one more row for each command, and nothing for each job. Programs of earlier versions note nothing.
set local lock_timeout = '5s';

create table sluice.enqueued (
    number      bigint generated always as identity primary key,
    batch       text not null,
    enqueued_by text not null default session_user,
    -- The created_at of its jobs.
    at          timestamptz not null default now(),
    -- Its jobs have numbers above the one and up to the other; so may other jobs.
    after_job   bigint not null,
    last_job    bigint not null,
    jobs        bigint not null check (jobs > 0)
);

comment on table sluice.enqueued is 'What each enqueue by command added. Read the view sluice.enqueues.';

create function sluice.note_enqueue(batch text, after_job bigint, jobs bigint) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    new_number bigint;
begin
    insert into sluice.enqueued (batch, after_job, last_job, jobs)
         values (note_enqueue.batch, note_enqueue.after_job, (select s.last_value from sluice.job_id_seq s),
                 note_enqueue.jobs)
    returning number into new_number;
    -- Retention drops jobs by their numbers; what is noted of them goes a little at a time.
    delete from sluice.enqueued e
     where e.number in (select o.number
                          from (select n.number, n.last_job from sluice.enqueued n order by n.number limit 20) o
                         where o.last_job < (select min(j.id) from sluice.job j))
       and e.number <> new_number;
    return new_number;
end
$$;

comment on function sluice.note_enqueue is
    'Gives what this transaction has added to a batch a number: all of its jobs above a job number.';

create view sluice.enqueues with (security_barrier) as
select e.number, e.batch, e.enqueued_by, e.at as enqueued_at, e.jobs
  from sluice.enqueued e
 where (select sluice.sees_all()) or e.enqueued_by = session_user;

comment on view sluice.enqueues is 'The enqueues by command, each with the number under which it can be cancelled.';
comment on column sluice.enqueues.jobs is 'How many jobs it added.';

-- Whose job it is, for this function and for those of the next version of the schema.
create function sluice.may_change(enqueued_by text) returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    -- Not sluice.sees_all: a reader of reports sees the jobs of others, and may change none of them.
    select $1 = session_user or coalesce((
        select bool_or(pg_has_role(session_user, r.id, 'member'))
          from (select n.nspowner as id from pg_namespace n where n.nspname = 'sluice'
                union all select to_regrole('sluice_worker')::oid) r
         where r.id is not null), false)
$$;

comment on function sluice.may_change is
    'Whether this login may cancel a job of that login: it is its own, or this one is the owner of the schema or a '
    'member of sluice_worker.';

-- A thousand jobs at a time. A row that is locked here cannot be claimed in between; one that is locked by another
-- session is being claimed, or moves, so it is left to the next look.
create function sluice.cancel_enqueued(
    number bigint, after bigint, out cancelled bigint, out begun bigint, out last bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    e sluice.enqueued;
    page bigint[];
    waiting bigint[];
begin
    select x.* into e from sluice.enqueued x where x.number = cancel_enqueued.number;
    -- An enqueue of another login is to an enqueuer what its jobs are: there is none.
    if not found or not sluice.may_change(e.enqueued_by) then
        raise no_data_found using message = format('there is no enqueue %s', cancel_enqueued.number);
    end if;
    select max(s.id), array_agg(s.id) filter (where s.created_at = e.at and s.enqueued_by = e.enqueued_by)
      into last, page
      from (select b.id, b.created_at, b.enqueued_by from sluice.job b
             where b.batch = e.batch and b.id > greatest(e.after_job, cancel_enqueued.after) and b.id <= e.last_job
             order by b.id limit 1000) s;
    waiting := array(select p.job_id from sluice.parked p where p.job_id = any (page) order by p.job_id
                        for update skip locked)
            || array(select r.job_id
                       from (select j.id, j.priority,
                                    sluice.flows_of(j.route, j.project, j.batch, j.enqueued_by) as flows
                               from sluice.job j where j.id = any (page)) s
                            cross join lateral (
                                select q.job_id from sluice.ready q
                                 where q.flow = any (s.flows) and q.prio = -(s.priority::integer) and q.job_id = s.id
                                   for update skip locked) r);
    select count(*) filter (where sluice.cancel(w.id)) into cancelled from unnest(waiting) w(id);
    select count(*) into begun from sluice.inflight i where i.job_id = any (page);
end
$$;

comment on function sluice.cancel_enqueued is
    'One step of sluice.cancel_enqueue: the next thousand jobs above a number. begun: those that a worker has; last: '
    'the last number that was looked at, NULL at the end.';

create function sluice.cancel_enqueue(number bigint) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    sum bigint := 0;
    step record;
    after bigint := 0;
begin
    loop
        select s.* into step from sluice.cancel_enqueued(cancel_enqueue.number, after) s;
        sum := sum + step.cancelled;
        exit when step.last is null;
        after := step.last;
    end loop;
    return sum;
end
$$;

comment on function sluice.cancel_enqueue is
    'Cancels the jobs of one enqueue by command that no worker has begun; returns how many.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
revoke execute on function sluice.note_enqueue, sluice.cancel_enqueued, sluice.cancel_enqueue from public;
grant execute on function sluice.may_change to public;
