-- $OPEN jobs that wait behind the $JOBS that have ended: half of them in one batch, the others in batches of fifty.
set session_replication_role = origin;
select setval(pg_get_serial_sequence('sluice.job', 'id'), $JOBS);
insert into sluice.job (route, project, batch, enqueued_by, request)
select 'route_' || g / 50 % 4, 'project-' || g / 200 % 6,
       case when g <= $OPEN / 2 then 'night' else 'evening-' || g / 50 end, 'login-' || g / 200 % 6 / 2,
       '{"messages": [{"role": "user", "content": "Summarise this ticket."}]}'
  from generate_series(1, $OPEN) g
