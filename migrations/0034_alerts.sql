-- Alerts: what the workers see, whether it fires, and the messages that receivers are to get.
--
-- One worker at a time looks, under a lease. Messages are rows that workers lease one by one: another one sends them
-- when the first does not come back, with the same id. Workers of earlier versions neither look nor send.
set local lock_timeout = '5s';

create table sluice.alert (
    id         bigint generated always as identity primary key,
    rule       text not null,
    subject    text not null,
    severity   text not null check (severity in ('info', 'warning', 'critical')),
    state      text not null check (state in ('pending', 'firing', 'resolved')),
    since      timestamptz not null,
    seen_at    timestamptz not null,
    fired_at   timestamptz,
    gone_since timestamptz,
    until      timestamptz,
    told_at    timestamptz,
    reminders  integer not null default 0,
    summary    text not null,
    details    jsonb not null default '{}',
    check ((state = 'pending') = (fired_at is null)),
    check ((state = 'resolved') = (until is not null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

create unique index alert_open on sluice.alert (rule, subject) where state <> 'resolved';
create index alert_fired_at on sluice.alert (fired_at);

comment on table sluice.alert is
    'What the rules of [alerts] see, and have seen. pending: it has not lasted for long enough to fire. Read '
    'sluice.alerts.';

create table sluice.alert_delivery (
    id           bigint generated always as identity primary key,
    message_id   text not null default 'msg_' || replace(gen_random_uuid()::text, '-', ''),
    receiver     text not null,
    kind         text not null,
    alert        bigint,
    message      jsonb not null,
    written_at   timestamptz not null default now(),
    due_at       timestamptz not null default now(),
    tries        integer not null default 0,
    leased_until timestamptz,
    leased_by    bigint,
    delivered_at timestamptz,
    gave_up_at   timestamptz,
    last_status  integer,
    last_words   text
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);

create index alert_delivery_due on sluice.alert_delivery (receiver, id)
 where delivered_at is null and gave_up_at is null;
create index alert_delivery_written_at on sluice.alert_delivery (written_at);

comment on table sluice.alert_delivery is
    'The messages to the receivers of [alerts]: a worker leases each of them until it has sent it. The id goes with '
    'each try, so that a receiver can tell a message that it has. Addresses and secrets are not here.';

create table sluice.alert_watch (
    id            boolean primary key default true check (id),
    worker        bigint,
    leased_until  timestamptz not null default '-infinity',
    looked_at     timestamptz,
    batches_since timestamptz
);
insert into sluice.alert_watch default values;

comment on table sluice.alert_watch is
    'One row: the worker that looks for all, until when, when it has looked last, and up to which hour the ends of '
    'batches are known.';

create table sluice.alert_sample (
    taken_at    timestamptz not null,
    route       text not null,
    ended       bigint not null,
    answered    bigint not null,
    fallbacks   bigint not null,
    cost_nanos  bigint not null,
    extra_nanos bigint not null,
    primary key (taken_at, route)
) with (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 2000);

comment on table sluice.alert_sample is
    'What the jobs of a route came to from the beginning of the hour to an instant of it: sums are kept by the hour, '
    'and alerts ask for the last minutes.';

create table sluice.batch_end (
    batch     text primary key,
    jobs      bigint not null,
    succeeded bigint not null,
    failed    bigint not null,
    cancelled bigint not null,
    is_open   boolean not null default false,
    times     integer not null,
    ended_at  timestamptz not null default now()
) with (fillfactor = 70);

create index batch_end_ended_at on sluice.batch_end (ended_at);

comment on table sluice.batch_end is
    'Batches whose last job has ended, as it was told to the receivers of [alerts]. is_open: jobs came in since.';

-- ------------------------------------------------------------------------------------------------- the view
create view sluice.alerts with (security_barrier) as
select a.id, a.rule, a.subject, a.severity, a.state, a.summary, a.details, a.since, a.fired_at, a.until, a.seen_at,
       a.reminders,
       (select count(*) from sluice.alert_delivery d where d.alert = a.id and d.delivered_at is not null) as delivered,
       (select count(*) from sluice.alert_delivery d
         where d.alert = a.id and d.delivered_at is null and d.gave_up_at is null) as waiting,
       (select count(*) from sluice.alert_delivery d where d.alert = a.id and d.gave_up_at is not null) as given_up
  from sluice.alert a
 where a.state <> 'pending';

create index alert_delivery_alert on sluice.alert_delivery (alert) where alert is not null;

comment on view sluice.alerts is 'Alerts that fire, and those that have fired and are over, as long as they are kept.';
comment on column sluice.alerts.id is 'The number of the alert, which is in its messages.';
comment on column sluice.alerts.rule is 'The rule of [alerts.rules] that sees it.';
comment on column sluice.alerts.subject is
    'What it is about: a target, a route, a budget. Rule and subject are its key.';
comment on column sluice.alerts.severity is 'info, warning or critical.';
comment on column sluice.alerts.state is 'firing or resolved.';
comment on column sluice.alerts.summary is 'What is seen, in a sentence.';
comment on column sluice.alerts.details is 'The figures behind it, as texts by name.';
comment on column sluice.alerts.since is 'When it was first seen.';
comment on column sluice.alerts.fired_at is 'When it fired: the time of its rule after it was first seen.';
comment on column sluice.alerts.until is 'When it was over. NULL: it is not.';
comment on column sluice.alerts.seen_at is 'When it was last seen.';
comment on column sluice.alerts.reminders is 'How many reminders there were.';
comment on column sluice.alerts.delivered is 'Messages about it that receivers have taken.';
comment on column sluice.alerts.waiting is 'Messages about it that no receiver has taken yet.';
comment on column sluice.alerts.given_up is 'Messages about it that were given up after a day.';

-- Every `sluice migrate` grants what the roles need (src/store/roles.rs).
do $$ begin
    if to_regrole('sluice_worker') is not null then
        grant select, insert, update, delete on sluice.alert, sluice.alert_delivery, sluice.alert_watch,
            sluice.alert_sample, sluice.batch_end to sluice_worker;
        grant select on sluice.alerts to sluice_worker;
    end if;
    if to_regrole('sluice_reporter') is not null then
        grant select on sluice.alerts, sluice.alert, sluice.alert_delivery to sluice_reporter;
    end if;
end $$;
