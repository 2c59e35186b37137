-- Tells whether the database is the one that workers knew, and what answers were lost.
with newest as (
    select * from sluice.timeline order by number desc limit 1
), since as (
    select t.* from sluice.totals t join newest n on t.hour >= date_trunc('hour', n.began_at)
     where n.change <> 'first' and t.class = 'abandoned' and t.detail = 'lost_answer'
)
select w.system_identifier is not null
  and (w.timeline is not null or pg_is_in_recovery()) as "is_readable!",
       pg_is_in_recovery() as "is_standby!",
       coalesce((select n.system_identifier <> w.system_identifier or n.database <> w.database
                        or n.relation <> w.relation or n.timeline <> w.timeline from newest n),
                false) as "is_news!",
       (select coalesce(sum(t.lost_calls), 0)::bigint from sluice.timeline t
         where t.lost_call_at > now() - interval '7 days') as "stray_calls!",
       (select coalesce(sum(t.lost_cost_nanos), 0)::bigint from sluice.timeline t
         where t.lost_call_at > now() - interval '7 days') as "stray_cost!",
       (select coalesce(sum(t.lost_unpriced), 0)::bigint from sluice.timeline t
         where t.lost_call_at > now() - interval '7 days') as "stray_unpriced!",
       (select coalesce(sum(attempts), 0)::bigint from since) as "again_calls!",
       (select coalesce(sum(uncertain_nanos), 0)::bigint from since) as "again_uncertain!",
       (select coalesce(sum(unpriced), 0)::bigint from since) as "again_unpriced!"
  from sluice.whereabouts() w
