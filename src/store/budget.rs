//! Budgets: where they stand, and the room that is reserved in them before a call.
//!
//! Only a process that asks for room locks the row of a budget. Code that books a call appends the call's cost, and the
//! next process that asks adds that up (`sluice.hold_budgets`).

mod needs;

use super::call::{self, OpenCall};
use super::claim::{Lease, timestamp};
use super::database::Transaction;
use super::{Doing, Store, StoreError};
use crate::domain::budget::{
    Budget, BudgetStanding, Budgets, Coverage, MOMENT, Outlay, Period, Shortage, Unpriced, grant,
};
use crate::domain::diagnosis::WrongBudget;
use crate::domain::{NanoUsd, Timestamp};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const READING: &str = "reading budgets";
const RESERVING: &str = "reserving what calls may cost";
/// How often a change that met another transaction's locks is tried before that is an error.
const TRIES: u32 = 5;

const SETTING: &str = "setting a budget";

/// The budgets as of one look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Which budgets there are has this number; another one means others.
    pub version: i64,
    pub budgets: Budgets,
}

impl Look {
    /// Whether some budget covers the call, as far as is known.
    #[must_use]
    pub fn may_cover(&self, call: &OpenCall) -> bool {
        // Whose login a job is of is looked up only where that matters.
        let covers = |scope: &Coverage| matches!(scope, Coverage::Login(_)) || scope.covers(&call.asked(None));
        self.budgets.0.iter().any(|standing| covers(&standing.budget.scope))
    }
}

/// A budget as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    pub standing: BudgetStanding,
    /// When its window began.
    pub starts_at: DateTime<Utc>,
    /// Calls in it whose price is unknown.
    pub unpriced_calls: i64,
    /// When its soft threshold was crossed in this window.
    pub soft_at: Option<DateTime<Utc>>,
    /// When it refused a call for the first time in this window.
    pub full_at: Option<DateTime<Utc>>,
    /// What it spends in an hour, by the last ten minutes.
    pub burn: NanoUsd,
    /// The login that set it last.
    pub set_by: String,
    pub set_at: DateTime<Utc>,
    /// Whether a configuration has it.
    pub is_configured: bool,
}

/// Why a call has no money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMoney {
    /// The budget that refuses it.
    pub standing: BudgetStanding,
    pub refusal: Shortage,
}

/// The outcome of opening one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covered {
    /// It may be made; its worst case is reserved.
    Open,
    /// The claim is gone.
    Lost,
    /// A budget refuses it.
    Refused(Box<NoMoney>),
}

/// The outcome of opening calls that budgets may cover.
#[derive(Clone, Debug)]
pub struct OpenedCalls {
    /// For each call, in their order.
    pub outcomes: Vec<Covered>,
    /// The thresholds that were crossed by that.
    pub crossings: Vec<Crossing>,
    /// Where the budgets that were asked stand now.
    pub standings: Vec<BudgetStanding>,
}

/// A threshold that was crossed, by this transaction and by no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    pub standing: BudgetStanding,
    /// Whether a call was refused for the first time; otherwise the soft threshold was crossed.
    pub is_full: bool,
}

/// Makes a standing of a row that has its columns.
macro_rules! standing {
    ($row:expr) => {
        BudgetStanding {
            budget: Budget {
                scope: Coverage::of(&$row.scope, &$row.scope_name).unwrap_or(Coverage::Total),
                period: Period::parse(&$row.period).unwrap_or(Period::Once),
                limit: NanoUsd($row.limit_nanos),
                soft: $row.soft.and_then(|millionths| u32::try_from(millionths).ok()),
                then_route: $row.then_route.clone(),
                unpriced: Unpriced::parse(&$row.unpriced).unwrap_or_default(),
                name: $row.name.clone(),
            },
            ends_at: $row.ends_at.map(timestamp),
            spent: NanoUsd($row.spent_nanos),
            uncertain: NanoUsd($row.uncertain_nanos),
            reserved: NanoUsd($row.reserved_nanos),
            least: $row.least_nanos.map(NanoUsd),
            least_is_old: $row.least_is_old,
        }
    };
}

/// Makes a row for people of a row that has its columns.
macro_rules! budget_row {
    ($row:expr) => {
        BudgetRow {
            standing: standing!($row),
            starts_at: $row.starts_at,
            unpriced_calls: $row.unpriced_calls,
            soft_at: $row.soft_at,
            full_at: $row.full_at,
            burn: NanoUsd($row.burn),
            set_by: $row.set_by.clone(),
            set_at: $row.set_at,
            is_configured: $row.is_configured,
        }
    };
}

impl OpenCall {
    /// The call as budgets see it.
    #[must_use]
    pub fn asked<'a>(&'a self, login: Option<&'a str>) -> Outlay<'a> {
        Outlay {
            route: &self.labels.route,
            project: &self.labels.project,
            batch: self.labels.batch.as_deref(),
            login,
            provider: Some(&self.target.provider),
            worst: self.worst.map(NanoUsd::of_a_call),
        }
    }
}

impl Store {
    /// Where all budgets stand.
    pub async fn budgets(&self) -> Result<Look, StoreError> {
        let version = sqlx::query_scalar!("select version from sluice.budget_version")
            .fetch_optional(&self.db)
            .await
            .doing(READING)?
            .unwrap_or_default();
        if version == 0 {
            // There has never been one.
            return Ok(Look::default());
        }
        let rows = self.budget_rows().await?;
        Ok(Look { version, budgets: Budgets(rows.into_iter().map(|row| row.standing).collect()) })
    }

    /// All budgets, by their names.
    pub async fn budget_rows(&self) -> Result<Vec<BudgetRow>, StoreError> {
        let rows = sqlx::query!(
            r#"select s.name as "name!", s.scope as "scope!", s.scope_name as "scope_name!", s.period as "period!",
                      s.limit_nanos as "limit_nanos!", (s.soft * 1000000)::integer as soft, s.then_route,
                      s.unpriced as "unpriced!", s.starts_at as "starts_at!", s.ends_at,
                      s.spent_nanos as "spent_nanos!", s.uncertain_nanos as "uncertain_nanos!",
                      s.reserved_nanos as "reserved_nanos!", s.least_nanos,
                      s.least_is_old as "least_is_old!", s.unpriced_calls as "unpriced_calls!",
                      s.soft_at, s.full_at, least(s.burn_nanos_per_hour, 9e18)::bigint as "burn!",
                      s.set_by as "set_by!", s.set_at as "set_at!", s.is_configured as "is_configured!"
                 from sluice.budget_standing s order by s.name"#
        )
        .fetch_all(&self.db)
        .await
        .doing(READING)?;
        Ok(rows.iter().map(|row| budget_row!(row)).collect())
    }

    /// Opens calls that some budget may cover, each of them only if there is room for its worst case in all that do.
    /// `None`: there are other budgets than those of this look.
    ///
    /// `is_beside`: the calls are made beside another one of their claims.
    pub async fn open_covered_calls(
        &self,
        calls: &[OpenCall],
        is_beside: bool,
        look: &Look,
    ) -> Result<Option<OpenedCalls>, StoreError> {
        let mut transaction = self.db.begin().await.doing(RESERVING)?;
        let logins = self.logins(&mut transaction, calls, look).await?;
        let login = |call: &OpenCall| logins.get(&call.lease.job.0).map(String::as_str);
        let covers = |scope: &Coverage| calls.iter().any(|call| scope.covers(&call.asked(login(call))));
        let names: Vec<String> = (look.budgets.0.iter())
            .filter(|standing| covers(&standing.budget.scope))
            .map(|standing| standing.budget.name.clone())
            .collect();
        let held = sqlx::query_file!("src/store/budget/hold.sql", &names)
            .fetch_all(&mut transaction)
            .await
            .doing(RESERVING)?;
        let version = match held.first() {
            Some(row) => row.version,
            None => sqlx::query_scalar!("select version from sluice.budget_version")
                .fetch_one(&mut transaction)
                .await
                .doing(RESERVING)?,
        };
        if version != look.version || held.len() != names.len() {
            transaction.rollback().await.doing(RESERVING)?;
            return Ok(None);
        }
        let mut standings: Vec<BudgetStanding> = held.iter().map(|row| standing!(row)).collect();
        let mut crossings: Vec<Crossing> = (held.iter().zip(&standings))
            .filter(|(row, _)| row.crossed)
            .map(|(_, standing)| Crossing { standing: standing.clone(), is_full: false })
            .collect();
        let granted: Vec<Result<Vec<usize>, Shortage>> =
            calls.iter().map(|call| grant(&mut standings, &call.asked(login(call)))).collect();
        let some: Vec<OpenCall> =
            calls.iter().zip(&granted).filter(|(_, granted)| granted.is_ok()).map(|(call, _)| call.clone()).collect();
        let opened: HashSet<(i64, i16)> = match (some.is_empty(), is_beside) {
            (true, _) => HashSet::new(),
            (false, true) => call::open_beside(&mut transaction, &some, version).await?,
            (false, false) => call::open_alone(&mut transaction, &some, version).await?,
        };
        let mut asked = Asking::default();
        for (index, standing) in standings.iter().enumerate() {
            let was_asked = calls.iter().any(|call| standing.budget.scope.covers(&call.asked(login(call))));
            let is_full = granted
                .iter()
                .any(|granted| matches!(granted, Err(Shortage::NoRoom { budget, .. }) if *budget == index));
            let is_new = held.get(index).is_some_and(|row| {
                row.least_is_old != standing.least_is_old || row.least_nanos != standing.least.map(|least| least.0)
            });
            if was_asked {
                asked.budget(standing, is_new, is_full);
            }
        }
        for (call, granted) in calls.iter().zip(&granted) {
            if let Ok(places) = granted
                && opened.contains(&(call.lease.fence, call.number))
            {
                let budgets = places.iter().filter_map(|place| standings.get(*place));
                asked.call(call, budgets.map(|standing| standing.budget.name.as_str()));
            }
        }
        let full = asked.write(&mut transaction).await?;
        crossings.extend(
            standings
                .iter()
                .filter(|standing| full.contains(&standing.budget.name))
                .map(|standing| Crossing { standing: standing.clone(), is_full: true }),
        );
        transaction.commit().await.doing(RESERVING)?;
        let outcome = |(call, granted): (&OpenCall, Result<Vec<usize>, Shortage>)| match granted {
            Ok(_) if opened.contains(&(call.lease.fence, call.number)) => Covered::Open,
            Ok(_) => Covered::Lost,
            Err(refusal) => match standings.get(refusal.budget()) {
                Some(standing) => Covered::Refused(Box::new(NoMoney { standing: standing.clone(), refusal })),
                None => Covered::Lost,
            },
        };
        let outcomes = calls.iter().zip(granted).map(outcome).collect();
        Ok(Some(OpenedCalls { outcomes, crossings, standings }))
    }

    /// The logins of the calls' jobs, by job, if some budget covers a login.
    async fn logins(
        &self,
        transaction: &mut Transaction,
        calls: &[OpenCall],
        look: &Look,
    ) -> Result<HashMap<i64, String>, StoreError> {
        if !look.budgets.0.iter().any(|standing| matches!(standing.budget.scope, Coverage::Login(_))) {
            return Ok(HashMap::new());
        }
        let jobs: Vec<i64> = calls.iter().map(|call| call.lease.job.0).collect();
        let rows = sqlx::query!(
            r#"select w.id as "id!", j.enqueued_by as "login!"
                 from unnest($1::bigint[]) w(id) cross join lateral (
                      select k.enqueued_by from sluice.job k where k.id = any (array[w.id]) limit 1) j"#,
            &jobs
        )
        .fetch_all(transaction)
        .await
        .doing(RESERVING)?;
        Ok(rows.into_iter().map(|row| (row.id, row.login)).collect())
    }

    /// Gives back the reservations of calls that were opened and not made.
    pub async fn release(&self, calls: &[(Lease, i16)]) -> Result<(), StoreError> {
        sqlx::query!(
            "select sluice.release_reservations($1, $2, $3)",
            &calls.iter().map(|(lease, _)| lease.job.0).collect::<Vec<_>>(),
            &calls.iter().map(|(lease, _)| lease.fence).collect::<Vec<_>>(),
            &calls.iter().map(|(_, number)| *number).collect::<Vec<_>>()
        )
        .fetch_one(&self.db)
        .await
        .doing("giving back what was reserved")?;
        Ok(())
    }

    /// Adds up all budgets, and gives back the reservations for calls of claims that are over: those that were not made
    /// because their worker ended. Returns the thresholds that were crossed.
    pub async fn tend_budgets(&self) -> Result<Vec<Crossing>, StoreError> {
        const TENDING: &str = "adding up budgets";
        let any = sqlx::query_scalar!(r#"select exists (select from sluice.budget) as "any!""#)
            .fetch_one(&self.db)
            .await
            .doing(TENDING)?;
        if !any {
            return Ok(Vec::new());
        }
        // Code that takes a claim away while its call is under way books that call, and its reservation goes with that.
        sqlx::query!(
            "select sluice.release_reservations(array_agg(g.job_id), array_agg(g.fence), array_agg(g.number))
               from (select r.job_id, r.fence, r.number from sluice.reservation r
                      where r.reserved_at < now() - interval '1 second'
                        and not exists (select from sluice.inflight i
                                         where i.job_id = any (array[r.job_id]) and i.fence = r.fence)
                        for update of r skip locked) g"
        )
        .fetch_one(&self.db)
        .await
        .doing(TENDING)?;
        let mut transaction = self.db.begin().await.doing(TENDING)?;
        let rows = sqlx::query_file!("src/store/budget/hold.sql", None::<&[String]> as _)
            .fetch_all(&mut transaction)
            .await
            .doing(TENDING)?;
        transaction.commit().await.doing(TENDING)?;
        let crossed = rows.iter().filter(|row| row.crossed);
        Ok(crossed.map(|row| Crossing { standing: standing!(row), is_full: false }).collect())
    }

    /// Sets a budget; one of that name is changed. True: something was changed.
    pub async fn set_budget(&self, budget: &Budget) -> Result<bool, StoreError> {
        let mut transaction = self.db.begin().await.doing(SETTING)?;
        let changed = set(&mut transaction, budget, None).await?;
        transaction.commit().await.doing(SETTING)?;
        Ok(changed)
    }

    /// How many jobs of a batch rest because this budget has refused them, and whether one of those that it has refused
    /// asks it again soon: it would have room if the reservations of that moment are given back. All others rest for
    /// minutes.
    pub async fn rest_for(&self, name: &str, batch: &str) -> Result<(i64, bool), StoreError> {
        let row = sqlx::query!(
            r#"select count(*) filter (where (select j.batch = $3 from sluice.job j
                                               where j.id = any (array[p.job_id]))) as "jobs!",
                      coalesce(bool_or(p.run_at < now() + make_interval(secs => $2)), false) as "soon!"
                 from sluice.parked p
                where p.reason not in ('scheduled', 'paused') and p.reason = 'budget ' || $1"#,
            name,
            MOMENT.as_secs_f64() + 1.0,
            batch
        )
        .fetch_one(&self.db)
        .await
        .doing(READING)?;
        Ok((row.jobs, row.soon))
    }

    /// Whether this login may set budgets.
    pub async fn may_set_budgets(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar!(
            r#"select has_function_privilege('sluice.raise_budget(text, numeric)', 'execute') as "may!""#
        )
        .fetch_one(&self.db)
        .await
        .doing("looking at rights")
    }

    /// Gives a budget another limit. True: it is another one.
    pub async fn raise_budget(&self, name: &str, limit: NanoUsd) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select sluice.raise_budget($1, $2::bigint / 1000000000.0) as "changed!""#, name, limit.0)
            .fetch_one(&self.db)
            .await
            .doing("raising a budget")
    }

    /// Removes a budget; false: there is none of that name.
    pub async fn drop_budget(&self, name: &str) -> Result<bool, StoreError> {
        sqlx::query_scalar!(r#"select sluice.drop_budget($1) as "changed!""#, name)
            .fetch_one(&self.db)
            .await
            .doing("removing a budget")
    }

    /// Sets the budgets of a configuration, as far as it says something else of them than any did last: changes made by
    /// hand since then stay. Removes those in `gone` that only a configuration has. Returns the changed ones.
    pub async fn apply_budgets(&self, budgets: &[Budget], gone: &[String]) -> Result<Vec<String>, StoreError> {
        let mut tries = 1;
        loop {
            match self.try_to_apply(budgets, gone).await {
                // Another worker sets budgets as well, or books calls, and locks the same rows in another order.
                Err(error) if error.is_contention() && tries < TRIES => tries += 1,
                applied => return applied,
            }
        }
    }

    async fn try_to_apply(&self, budgets: &[Budget], gone: &[String]) -> Result<Vec<String>, StoreError> {
        let mut changed = Vec::new();
        if budgets.is_empty() && gone.is_empty() {
            return Ok(changed);
        }
        let known: BTreeMap<String, Option<String>> =
            sqlx::query!(r#"select name, configured #>> '{}' as configured from sluice.budget"#)
                .fetch_all(&self.db)
                .await
                .doing(SETTING)?
                .into_iter()
                .map(|row| (row.name, row.configured))
                .collect();
        let mut transaction = self.db.begin().await.doing(SETTING)?;
        for name in gone.iter().filter(|name| known.get(*name).is_some_and(Option::is_some)) {
            sqlx::query!("select sluice.drop_budget($1)", name).fetch_one(&mut transaction).await.doing(SETTING)?;
            changed.push(name.clone());
        }
        for budget in budgets {
            let said = format!("{budget:?}");
            if known.get(&budget.name).and_then(Option::as_deref) != Some(said.as_str())
                && set(&mut transaction, budget, Some(&said)).await?
            {
                changed.push(budget.name.clone());
            }
        }
        transaction.commit().await.doing(SETTING)?;
        Ok(changed)
    }

    /// Compares budgets with the books; `repair`: corrects them. Returns those that differed.
    pub async fn check_budgets(&self, repair: bool) -> Result<Vec<WrongBudget>, StoreError> {
        let rows = sqlx::query!(
            r#"select name as "name!", spent_nanos as "spent!", booked_nanos as "booked!",
                      uncertain_nanos as "uncertain!", booked_uncertain as "booked_uncertain!",
                      reserved_nanos as "reserved!", under_way_nanos as "under_way!"
                 from sluice.check_budgets($1)"#,
            repair
        )
        .fetch_all(&self.db)
        .await
        .doing("comparing budgets with the books")?;
        let wrong = rows.into_iter().map(|row| WrongBudget {
            name: row.name,
            spent: NanoUsd(row.spent),
            booked: NanoUsd(row.booked),
            uncertain: NanoUsd(row.uncertain),
            booked_uncertain: NanoUsd(row.booked_uncertain),
            reserved: NanoUsd(row.reserved),
            under_way: NanoUsd(row.under_way),
        });
        Ok(wrong.collect())
    }
}

/// Sets a budget. `said`: what a configuration says of it.
pub(super) async fn set(
    transaction: &mut Transaction,
    budget: &Budget,
    said: Option<&str>,
) -> Result<bool, StoreError> {
    let of = |kind: &str| (budget.scope.kind() == kind).then(|| budget.scope.name());
    sqlx::query_scalar!(
        r#"select sluice.set_budget($1, $2::bigint / 1000000000.0, $3, project => $4, route => $5, provider => $6,
                                    batch => $7, login => $8, soft => $9::integer / 1000000.0, then_route => $10,
                                    unpriced => $11, configured => to_jsonb($12::text)) as "changed!""#,
        budget.name,
        budget.limit.0,
        budget.period.as_str(),
        of("project"),
        of("route"),
        of("provider"),
        of("batch"),
        of("login"),
        budget.soft.and_then(|millionths| i32::try_from(millionths).ok()) as _,
        budget.then_route.as_deref() as _,
        budget.unpriced.as_str(),
        said as _
    )
    .fetch_one(transaction)
    .await
    .doing(SETTING)
}

/// What one transaction asks of budgets, as lists.
#[derive(Default)]
struct Asking {
    jobs: Vec<i64>,
    fences: Vec<i64>,
    numbers: Vec<i16>,
    nanos: Vec<i64>,
    places: Vec<i64>,
    covering: Vec<String>,
    budgets: Vec<String>,
    least: Vec<Option<i64>>,
    is_new: Vec<bool>,
    is_full: Vec<bool>,
}

impl Asking {
    /// A budget that was asked.
    fn budget(&mut self, standing: &BudgetStanding, is_new: bool, is_full: bool) {
        self.budgets.push(standing.budget.name.clone());
        self.least.push(standing.least.map(|least| least.0));
        self.is_new.push(is_new);
        self.is_full.push(is_full);
    }

    /// A call that is open, and the budgets that cover it.
    fn call<'a>(&mut self, call: &OpenCall, budgets: impl Iterator<Item = &'a str>) {
        self.jobs.push(call.lease.job.0);
        self.fences.push(call.lease.fence);
        self.numbers.push(call.number);
        self.nanos.push(call.worst.map_or(0, |worst| worst.of_a_call().0));
        let place = i64::try_from(self.jobs.len()).unwrap_or(i64::MAX);
        for budget in budgets {
            self.places.push(place);
            self.covering.push(budget.to_owned());
        }
        if self.places.last() != Some(&place) {
            // None covers it after all: nothing is noted of it.
            self.jobs.pop();
            self.fences.pop();
            self.numbers.pop();
            self.nanos.pop();
        }
    }

    /// Writes it, and returns the budgets that have refused a call for the first time in their window.
    async fn write(self, transaction: &mut Transaction) -> Result<BTreeSet<String>, StoreError> {
        let full = sqlx::query_file_scalar!(
            "src/store/budget/reserve.sql",
            &self.jobs,
            &self.fences,
            &self.numbers,
            &self.nanos,
            &self.places,
            &self.covering,
            &self.budgets,
            &self.least as _,
            &self.is_new,
            &self.is_full
        )
        .fetch_all(transaction)
        .await
        .doing(RESERVING)?;
        Ok(full.into_iter().collect())
    }
}

impl Crossing {
    /// When its window turns; `None`: never.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.standing.ends_at
    }
}
