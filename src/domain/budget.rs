//! Budgets: what may be spent on what, and whether a call may be made.
//!
//! A budget holds, at any instant: spent + uncertain + reserved is at most the limit. Before a call its worst case is
//! reserved in every budget that covers it ([`grant`]); when it is booked, the reservation is replaced by what it has
//! cost, or by its worst case as uncertain where that is not known. When the window turns, the spent amount counts no
//! more and the reserved one stays: calls that are under way then may end in the new window.

use super::shut::{NEVER, Reason, Shut};
use super::{MoneyError, NanoUsd, Timestamp, shadow};
use std::fmt::{self, Write as _};
use std::time::Duration;

/// How long a job rests that would have room if calls under way gave theirs back.
pub const MOMENT: Duration = Duration::from_secs(2);

/// How many jobs of a lane try whether they need less than those before them.
const TRIES: usize = 20;

/// How long a job rests at most before it asks a budget again: an uncertain amount may turn out to be none.
pub const REST: Duration = Duration::from_mins(5);

/// The largest amount: sums of it and of all that may be spent beyond it are still counted exactly.
pub const MOST: NanoUsd = NanoUsd(9_000_000_000_000_000_000);

/// Reads the amount of a budget: dollars above 0, up to [`MOST`].
///
/// # Errors
/// The fault in words that follow the amount.
pub fn amount(text: &str) -> Result<NanoUsd, String> {
    let text = text.trim();
    match text.parse::<NanoUsd>() {
        Ok(NanoUsd(0)) => Err("is nothing: to let nothing run, pause it".to_owned()),
        Ok(amount) if amount <= MOST => Ok(amount),
        Ok(_) | Err(MoneyError::TooLarge) => Err(format!("is more than {} dollars", MOST.0 / 1_000_000_000)),
        Err(_) if text.starts_with('-') => Err("is below 0".to_owned()),
        Err(_) if text.contains(['$', '€']) => Err("has the sign of a currency: dollars are meant".to_owned()),
        Err(problem) => Err(format!("is no amount: {problem}")),
    }
}

/// What a budget covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coverage {
    /// Every call.
    Total,
    /// The calls for jobs of a project.
    Project(String),
    /// The calls for jobs whose row names a route.
    Route(String),
    /// The calls to a provider.
    Provider(String),
    /// The calls for jobs of a batch.
    Batch(String),
    /// The calls for jobs that a login has enqueued.
    Login(String),
}

impl Coverage {
    /// The kinds of scopes by their names in the database, `total` first.
    pub const KINDS: [&'static str; 6] = ["total", "project", "route", "provider", "batch", "login"];

    /// The kind of scope, as the database has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Project(_) => "project",
            Self::Route(_) => "route",
            Self::Provider(_) => "provider",
            Self::Batch(_) => "batch",
            Self::Login(_) => "login",
        }
    }

    /// The name of what it covers; empty for everything.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Total => "",
            Self::Project(name) | Self::Route(name) | Self::Provider(name) | Self::Batch(name) | Self::Login(name) => {
                name
            }
        }
    }

    /// The scope of this kind and name; `None`: there is no such kind.
    #[must_use]
    pub fn of(kind: &str, name: &str) -> Option<Self> {
        let name = name.to_owned();
        Some(match kind {
            "total" => Self::Total,
            "project" => Self::Project(name),
            "route" => Self::Route(name),
            "provider" => Self::Provider(name),
            "batch" => Self::Batch(name),
            "login" => Self::Login(name),
            _ => return None,
        })
    }

    /// Whether a budget of this scope covers a call.
    #[must_use]
    pub fn covers(&self, asked: &Outlay<'_>) -> bool {
        match self {
            Self::Total => true,
            Self::Project(name) => asked.project == name,
            Self::Route(name) => asked.route == name,
            Self::Provider(name) => asked.provider == Some(name.as_str()),
            Self::Batch(name) => asked.batch == Some(name.as_str()),
            Self::Login(name) => asked.login == Some(name.as_str()),
        }
    }

    /// Whether it closes a provider's rungs, and not the jobs of a lane.
    #[must_use]
    pub const fn is_provider(&self) -> bool {
        matches!(self, Self::Provider(_))
    }
}

impl fmt::Display for Coverage {
    /// `project news`, or `everything`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total => f.write_str("everything"),
            other => write!(f, "{} {}", other.kind(), other.name()),
        }
    }
}

/// How long a budget counts before it begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// From hour to hour.
    Hour,
    /// From midnight to midnight, by UTC.
    Day,
    /// From the first of a month to the first of the next, by UTC.
    Month,
    /// For ever.
    Once,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Month, Self::Once];

    /// The word in the configuration and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Once => "once",
        }
    }

    /// The period of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == word)
    }
}

/// The treatment of a call whose price is unknown, so that no worst case can be reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpriced {
    /// It is not made: its rung is passed.
    #[default]
    Refuse,
    /// It is made, and counted nowhere.
    Allow,
}

impl Unpriced {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Allow];

    /// The word in the configuration and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }

    /// What this word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unpriced| unpriced.as_str() == word)
    }
}

/// A budget as it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub name: String,
    pub scope: Coverage,
    pub period: Period,
    pub limit: NanoUsd,
    /// The share of the limit, in millionths, from which on it alerts; `None`: it does not.
    pub soft: Option<u32>,
    /// The route along which its jobs go from there on.
    pub then_route: Option<String>,
    pub unpriced: Unpriced,
}

impl Budget {
    /// What a batch may cost in all, as `--max-cost` says it.
    #[must_use]
    pub fn of_batch(batch: &str, limit: NanoUsd) -> Self {
        Self {
            name: Self::name_of_batch(batch),
            scope: Coverage::Batch(batch.to_owned()),
            period: Period::Once,
            limit,
            soft: None,
            then_route: None,
            unpriced: Unpriced::Refuse,
        }
    }

    /// The name of that budget.
    #[must_use]
    pub fn name_of_batch(batch: &str) -> String {
        format!("batch:{batch}")
    }
}

/// A budget, and where it stands in the window of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStanding {
    pub budget: Budget,
    /// When its window turns; `None`: never.
    pub ends_at: Option<Timestamp>,
    pub spent: NanoUsd,
    /// The worst cases of calls whose end is not known.
    pub uncertain: NanoUsd,
    /// The worst cases of calls under way.
    pub reserved: NanoUsd,
    /// The smallest worst case that was asked for lately, …
    pub least: Option<NanoUsd>,
    /// … or long ago: smaller calls may have come since.
    pub least_is_old: bool,
}

/// Work of one kind: the jobs left, and what the same has cost lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remainder {
    /// Jobs that have not ended.
    pub jobs_left: i64,
    /// Jobs that have ended lately, …
    pub ended: i64,
    /// … and all that was spent meanwhile, uncertain amounts too.
    pub spent: NanoUsd,
}

/// The work left that a budget covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Jobs that have not ended.
    pub jobs_left: i64,
    /// About what they will cost; `None`: no such job has ended lately.
    pub expected: Option<NanoUsd>,
}

impl Need {
    /// All of these together. Kinds of which no job has ended lately are not in the expected cost.
    #[must_use]
    pub fn of(remainders: impl IntoIterator<Item = Remainder>) -> Self {
        let mut need = Self::default();
        for Remainder { jobs_left, ended, spent } in remainders {
            let jobs_left = jobs_left.max(0);
            need.jobs_left = need.jobs_left.saturating_add(jobs_left);
            let sum = i128::from(spent.0.max(0)).saturating_mul(i128::from(jobs_left));
            if let Some(expected) = sum.checked_div(i128::from(ended.max(0))) {
                let expected = i64::try_from(expected).unwrap_or(i64::MAX);
                let before = need.expected.unwrap_or(NanoUsd::ZERO).0;
                need.expected = Some(NanoUsd(before.saturating_add(expected)));
            }
        }
        need
    }
}

/// A call that asks for room. Without a provider it stands for the jobs of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlay<'a> {
    pub route: &'a str,
    pub project: &'a str,
    pub batch: Option<&'a str>,
    pub login: Option<&'a str>,
    pub provider: Option<&'a str>,
    /// The most that it may cost; `None`: its price is unknown.
    pub worst: Option<NanoUsd>,
}

/// Why a call is not made. `budget` is the place of the budget among those that were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is no room for its worst case now. `is_moment`: there would be if the reservations were given back.
    NoRoom { budget: usize, is_moment: bool },
    /// Its worst case is more than the whole budget.
    NeverFits { budget: usize, worst: NanoUsd },
    /// Its worst case is not known.
    Unpriced { budget: usize },
}

impl Shortage {
    /// The place of the budget among those that were asked.
    #[must_use]
    pub const fn budget(self) -> usize {
        match self {
            Self::NoRoom { budget, .. } | Self::NeverFits { budget, .. } | Self::Unpriced { budget } => budget,
        }
    }
}

impl BudgetStanding {
    /// The amount that may be spent beside the spent, uncertain and reserved ones; negative where the limit was
    /// lowered, or a call has cost more than its worst case.
    #[must_use]
    pub fn room(&self) -> NanoUsd {
        self.budget.limit - self.used() - self.reserved
    }

    /// The amount that counts as spent: the certain part, and the part that may have been spent.
    #[must_use]
    pub fn used(&self) -> NanoUsd {
        self.spent + self.uncertain
    }

    /// Whether it has no room for the smallest call that was asked for lately.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.room() < self.least.unwrap_or(NanoUsd(1)).max(NanoUsd(1))
    }

    /// Whether jobs are kept from asking it. Now and then one may, since it may ask for less than those before it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        if self.least_is_old { self.room().0 <= 0 } else { self.holds() }
    }

    /// Whether it would have room for the smallest call if the reservations were given back.
    #[must_use]
    pub fn holds_for_a_moment(&self) -> bool {
        self.holds() && self.budget.limit - self.used() >= self.least.unwrap_or(NanoUsd(1)).max(NanoUsd(1))
    }

    /// Whether calls under way are in the way of the next one: there would be room for some call if what they have
    /// reserved were given back. The call that was refused may ask for more than the smallest.
    #[must_use]
    pub fn waits_for_calls(&self) -> bool {
        self.reserved.0 > 0 && self.budget.limit - self.used() >= self.least.unwrap_or(NanoUsd(1)).max(NanoUsd(1))
    }

    /// Whether more than the soft share of the limit is spent.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.budget.soft.is_some_and(|millionths| {
            i128::from(self.used().0) * 1_000_000 >= i128::from(self.budget.limit.0) * i128::from(millionths)
        })
    }

    /// About how many more calls it has room for, by the smallest one that was asked for lately; `None`: unknown.
    #[must_use]
    pub fn calls_left(&self) -> Option<usize> {
        if self.least_is_old && self.holds() {
            return Some(TRIES);
        }
        let least = self.least.filter(|least| least.0 > 0)?;
        Some(usize::try_from(self.room().0.max(0) / least.0).unwrap_or(usize::MAX))
    }

    /// When it has room again by itself, as far as is known: where calls under way will give some back, that may be at
    /// any moment.
    #[must_use]
    pub fn opens(&self) -> Option<Timestamp> {
        self.ends_at.filter(|_| !self.holds_for_a_moment())
    }

    /// How it stands, in words: `$0.98 of $1.00 is spent, $0.02 more may have been spent, $0.01 is reserved for calls
    /// under way`.
    #[must_use]
    pub fn in_words(&self) -> String {
        let mut words = format!("{} of {} is spent", self.spent, self.budget.limit);
        if self.uncertain.0 > 0 {
            let _ = write!(words, ", {} more may have been spent", self.uncertain);
        }
        if self.reserved.0 > 0 {
            let _ = write!(words, ", {} is reserved for calls under way", self.reserved);
        }
        words
    }

    /// How long it has no room, as far as is known: a moment where calls under way will give some back, else until its
    /// window turns.
    #[must_use]
    pub fn shut(&self, now: Timestamp) -> Shut {
        let until = if self.holds_for_a_moment() { now + MOMENT } else { self.ends_at.unwrap_or(now + NEVER + NEVER) };
        Shut { reason: Reason::Budget, since: now, until: until.max(now + MOMENT) }
    }

    /// Whether it covers the jobs of a lane whichever rung they go to.
    fn holds_lane(&self, lane: &Outlay<'_>) -> bool {
        !self.budget.scope.is_provider() && self.budget.scope.covers(lane)
    }

    fn refuses(&self, worst: Option<NanoUsd>, budget: usize) -> Option<Shortage> {
        let Some(worst) = worst else {
            return match self.budget.unpriced {
                Unpriced::Refuse => Some(Shortage::Unpriced { budget }),
                // With no room at all nothing goes on.
                Unpriced::Allow if self.room().0 <= 0 => {
                    Some(Shortage::NoRoom { budget, is_moment: self.reserved.0 > 0 })
                }
                Unpriced::Allow => None,
            };
        };
        if worst > self.budget.limit {
            Some(Shortage::NeverFits { budget, worst })
        } else if worst > self.room() {
            Some(Shortage::NoRoom { budget, is_moment: worst <= self.budget.limit - self.used() })
        } else {
            None
        }
    }

    /// Notes that a call of this size asked for room.
    fn note(&mut self, worst: NanoUsd) {
        if std::mem::take(&mut self.least_is_old) || self.least.is_none_or(|least| worst < least) {
            self.least = Some(worst);
        }
    }
}

/// Reserves the worst case of a call in all budgets that cover it, or in none. Returns the places of those.
///
/// # Errors
/// Why the call is not made. A budget in which it never fits is named before one without a price, and those before one
/// without room; of the latter one of a lane before one of a provider, since the job's other rungs would not help.
pub fn grant(standings: &mut [BudgetStanding], asked: &Outlay<'_>) -> Result<Vec<usize>, Shortage> {
    let covering: Vec<usize> = (0..standings.len())
        .filter(|&index| standings.get(index).is_some_and(|it| it.budget.scope.covers(asked)))
        .collect();
    let mut refusals: Vec<Shortage> =
        covering.iter().filter_map(|&index| standings.get(index)?.refuses(asked.worst, index)).collect();
    let rank = |refusal: &Shortage| match refusal {
        Shortage::NeverFits { .. } => 0,
        Shortage::Unpriced { .. } => 1,
        Shortage::NoRoom { budget, .. } => {
            2 + u8::from(standings.get(*budget).is_some_and(|it| it.budget.scope.is_provider()))
        }
    };
    refusals.sort_by_key(rank);
    let refusal = refusals.first().copied();
    let worst = asked.worst.unwrap_or_default();
    for &index in &covering {
        let Some(standing) = standings.get_mut(index) else { continue };
        // A call that can never be made here says nothing of the room that calls need.
        if worst.0 > 0 && worst <= standing.budget.limit {
            standing.note(worst);
        }
        if refusal.is_none() {
            standing.reserved += worst;
        }
    }
    refusal.map_or(Ok(covering), Err)
}

/// Budgets that contradict each other, in words: two of the same scope and period, or a longer period with less money
/// than a shorter one of the same scope, which would then never be reached.
#[must_use]
pub fn contradictions(budgets: &[Budget]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, budget) in budgets.iter().enumerate() {
        let same = |other: &&Budget| other.name != budget.name && other.scope == budget.scope;
        let before = budgets.iter().take(index).filter(same).find(|other| other.period == budget.period);
        if let Some(other) = before {
            let what = format!("{} covers {} per {} already", other.name, other.scope, other.period.as_str());
            found.push((index, what.replace("per once", "once")));
        }
        let longer = |other: &&Budget| other.period > budget.period && other.limit < budget.limit;
        if let Some(other) = budgets.iter().filter(same).find(longer) {
            let word = if other.period == Period::Once { "once" } else { other.period.as_str() };
            found.push((
                index,
                format!("is never reached: {} allows {} less ({} per {word})", other.name, other.scope, other.limit)
                    .replace("per once", "once"),
            ));
        }
    }
    found
}

/// The faults of budgets by a configuration, in words, each with the place of its budget: contradictions, and names of
/// routes and providers that the configuration does not have. A configuration refuses these; SQL knows no routes.
#[must_use]
pub fn faults(
    budgets: &[Budget],
    has_route: impl Fn(&str) -> bool,
    has_provider: impl Fn(&str) -> bool,
) -> Vec<(usize, String)> {
    let mut found = contradictions(budgets);
    for (index, budget) in budgets.iter().enumerate() {
        match &budget.scope {
            Coverage::Route(route) if !has_route(route) => {
                found.push((index, format!("covers the route {route}, which the configuration does not have")));
            }
            Coverage::Provider(provider) if !has_provider(provider) => {
                found.push((index, format!("covers the provider {provider}, which the configuration does not have")));
            }
            _ => {}
        }
        if let Some(route) = budget.then_route.as_deref().filter(|route| !has_route(route)) {
            found.push((
                index,
                format!("sends its jobs along {route}, and there is no such route: they stay on their own"),
            ));
        }
    }
    found
}

/// All budgets, as a worker has seen them last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets(pub Vec<BudgetStanding>);

impl Budgets {
    /// The budget without room that holds back the jobs of a lane.
    #[must_use]
    pub fn held_back(&self, lane: &Outlay<'_>) -> Option<&BudgetStanding> {
        self.0.iter().find(|standing| standing.holds_lane(lane) && standing.is_closed())
    }

    /// The budget that has no room for the smallest call that was asked for lately, as people are told.
    #[must_use]
    pub fn without_room(&self, lane: &Outlay<'_>) -> Option<&BudgetStanding> {
        self.0.iter().find(|standing| standing.holds_lane(lane) && standing.holds())
    }

    /// Notes that so many jobs of a lane are about to ask for room: each of them for as much as the smallest call.
    pub fn take(&mut self, lane: &Outlay<'_>, jobs: usize) {
        let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
        for standing in self.0.iter_mut().filter(|standing| standing.budget.scope.covers(lane)) {
            let least = standing.least.unwrap_or_default();
            standing.reserved += NanoUsd(least.0.saturating_mul(jobs));
            standing.least_is_old = false;
        }
    }

    /// About how many jobs of a lane the budgets have room for; `None`: nothing is known to limit them.
    #[must_use]
    pub fn calls_left(&self, lane: &Outlay<'_>) -> Option<usize> {
        self.0.iter().filter(|standing| standing.holds_lane(lane)).filter_map(BudgetStanding::calls_left).min()
    }

    /// The route along which the jobs of a lane go because a budget is past its soft threshold, and that budget.
    #[must_use]
    pub fn other_route(&self, lane: &Outlay<'_>) -> Option<(&str, &Budget)> {
        // A shadow on another target would be the shadow of something else.
        if shadow::shadowed(lane.route).is_some() {
            return None;
        }
        let soft = self.0.iter().filter(|standing| standing.holds_lane(lane) && standing.is_soft());
        let mut ways = soft.filter_map(|standing| Some((standing.budget.then_route.as_deref()?, &standing.budget)));
        ways.find(|(route, _)| *route != lane.route)
    }

    /// The providers whose rungs are closed, each with the budget that has no room.
    pub fn closed_providers(&self) -> impl Iterator<Item = (&str, &BudgetStanding)> {
        self.0.iter().filter_map(|standing| match &standing.budget.scope {
            Coverage::Provider(name) if standing.is_closed() => Some((name.as_str(), standing)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
