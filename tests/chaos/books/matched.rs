//! Each call of the simulator with the row that it has on the ledger.

use super::{CLOCKS, Diary, Evidence, FIRST_BYTE, Finding, IN_HAND, Job, Row, Table};
use crate::chaos::load::{Fate, Intervention, Wish};
use sluice::simulate::CallRecord;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Each call with the row that it has on the ledger.
pub struct Matched<'a> {
    pairs: Vec<(&'a CallRecord, &'a Row)>,
    /// Calls that have no row on the ledger.
    unbooked: Vec<(&'a CallRecord, Option<i64>)>,
    /// Rows without a call.
    uncalled: Vec<&'a Row>,
    /// Jobs that were or may have been cancelled at some time.
    cancelled: HashSet<i64>,
}

impl<'a> Matched<'a> {
    /// By request id where the answer's head came, else by job and target in the order of time.
    pub fn of(evidence: &'a Evidence, findings: &mut Vec<Finding>) -> Self {
        let Evidence { jobs, rows, calls, told, .. } = evidence;
        let ids: HashMap<&str, i64> = jobs.iter().map(|job| (job.custom_id.as_str(), job.id)).collect();
        // A job that is lost had a number all the same.
        let number = |wish: &Wish| match wish.fate {
            Fate::Accepted(id) => Some(id),
            Fate::Never | Fate::Unknown => None,
        };
        let job_of: HashMap<String, Option<i64>> = told
            .wishes
            .iter()
            .map(|wish| {
                let id = ids.get(wish.tag.as_str()).copied();
                (format!("{:016x}", wish.prompt), id.or_else(|| number(wish)))
            })
            .collect();
        let request_of: HashMap<i64, String> = told
            .wishes
            .iter()
            .filter_map(|wish| Some((*ids.get(wish.tag.as_str())?, format!("{:016x}", wish.prompt))))
            .collect();
        let mut by_request: HashMap<&str, &Row> = HashMap::new();
        let mut cut: HashMap<(i64, &str, &str), Vec<&Row>> = HashMap::new();
        for row in rows {
            match &row.request_id {
                None => cut.entry((row.job_id, &row.provider, &row.model)).or_default().push(row),
                Some(id) => {
                    if by_request.insert(id, row).is_some() {
                        let what = format!("the call {id} is booked twice");
                        findings.push(Finding { what, job: Some(row.job_id) });
                    }
                }
            }
        }
        let (mut pairs, mut open) = (Vec::new(), Vec::new());
        for call in calls {
            match by_request.remove(call.request_id.as_str()) {
                Some(row) => {
                    // The job may be lost without ever having been confirmed; its number may be another job's now.
                    let asked = job_of.get(&call.request).copied().flatten();
                    let others = row.round >= 0 && request_of.get(&row.job_id).is_some_and(|job| *job != call.request);
                    if others || (asked != Some(row.job_id) && !evidence.may_be_lost(call)) {
                        let what = format!("booked for a job that did not ask it: {call:?}, {row:?}");
                        findings.push(Finding { what, job: Some(row.job_id) });
                    }
                    pairs.push((call, row));
                }
                None => open.push(call),
            }
        }
        let mut unbooked = Vec::new();
        for call in open {
            let Some(job) = job_of.get(&call.request).copied().flatten() else {
                unbooked.push((call, None));
                continue;
            };
            // The latest row that had begun when the call arrived: those before it may never have been sent.
            let arrived = evidence.wall(call.arrived_ms);
            let candidates = cut.entry((job, &call.provider, &call.model)).or_default();
            let latest = candidates.iter().rposition(|row| row.started <= arrived + CLOCKS);
            match latest {
                Some(at) => pairs.push((call, candidates.remove(at))),
                None => unbooked.push((call, Some(job))),
            }
        }
        let uncalled = cut.into_values().flatten().chain(by_request.into_values()).collect();
        let cancels = |list: &[Intervention]| list.iter().any(|one| !one.retry && one.answer != Some(false));
        let mut cancelled: HashSet<i64> =
            told.interventions.iter().filter(|(_, list)| cancels(list)).map(|(job, _)| *job).collect();
        let batches: HashSet<&str> = told.doubtful_batches.iter().map(String::as_str).collect();
        let in_batch = |job: &&Job| job.batch.as_deref().is_some_and(|batch| batches.contains(batch));
        cancelled.extend(jobs.iter().filter(in_batch).map(|job| job.id));
        Self { pairs, unbooked, uncalled, cancelled }
    }

    /// 2, 3 and 5: no call without a row, no row without a call, and the same money on both sides.
    pub fn judge(&self, evidence: &Evidence, table: &mut Table, findings: &mut Vec<Finding>) {
        let Diary { kills, pauses, roomless, .. } = &evidence.diary;
        let mut finding = |job: Option<i64>, what: String| findings.push(Finding { what, job });
        let answered: HashSet<i64> = evidence.rows.iter().filter(|row| row.accepted).map(|row| row.job_id).collect();
        // How long before the end of their worker they were given out.
        let mut lost_answers: Vec<i64> = Vec::new();
        let (mut same_money, mut uncertain_money) = (0_u64, 0_u64);
        let mut placeholders = 0_u64;
        // What the database knew of them is lost.
        let mut lost: Vec<&CallRecord> = Vec::new();
        let mut of_lost_jobs = 0_u64;
        for (call, row) in &self.pairs {
            let charged = i64::try_from(call.nano_usd.unwrap_or(0)).unwrap();
            let cost = row.cost_nanos.unwrap_or(-1);
            let named = cost == 0 && row.uncertain_nanos >= charged && row.uncertain_nanos > 0;
            if cost == charged {
                same_money += call.nano_usd.unwrap_or(0);
            } else if named {
                uncertain_money += call.nano_usd.unwrap_or(0);
            } else if row.request_id.is_none() && evidence.may_be_lost(call) {
                // It may be the row of another call: its own is lost.
                lost.push(call);
            } else {
                finding(
                    Some(row.job_id),
                    format!("the provider charged {charged}, the ledger says {cost}: {call:?}, {row:?}"),
                );
            }
            let good = call.charged && matches!(call.fault, None | Some("slow" | "slow_drip"));
            if row.request_id.is_some() {
                let is_stray = row.round < 0 && row.class.as_deref() == Some("abandoned");
                of_lost_jobs += u64::from(is_stray);
                let used = row.accepted || row.is("abandoned", Some("late")) || is_stray;
                if good && !used {
                    finding(Some(row.job_id), format!("a good answer was thrown away: {call:?}, {row:?}"));
                }
                continue;
            }
            placeholders += u64::from(row.is("abandoned", Some("worker_died")));
            if !call.charged {
                continue;
            }
            // Given out in full, and no row has it.
            let ended = evidence.wall(call.ended_ms);
            // A worker without room for what the database does not take keeps it in memory, and a worker that hangs
            // writes nothing.
            let longer = roomless.iter().chain(pauses).filter(|window| window.meets(row.started, ended));
            let until = longer.map(|window| window.until).max().unwrap_or(0).max(ended + IN_HAND);
            // The worker lived when it was answered: one that is gone is not answered in full.
            let killed = kills.iter().filter(|kill| (ended - CLOCKS..=until).contains(kill)).min();
            lost_answers.push(killed.map_or(0, |kill| (kill - ended).max(0)));
            let paused = pauses.iter().any(|pause| pause.meets(row.started, row.ended));
            // On a slow machine an answer takes as long as a worker waits for it.
            let too_late = ended >= row.started + FIRST_BYTE - CLOCKS;
            let excused = match row.class.as_deref() {
                Some("abandoned") if row.detail.as_deref() == Some("worker_died") => killed.is_some(),
                Some("abandoned") => self.cancelled.contains(&row.job_id) || answered.contains(&row.job_id),
                Some("timeout") => paused || too_late,
                Some("network") => paused,
                _ => false,
            };
            if !excused && evidence.may_be_lost(call) {
                lost.push(call);
            } else if !excused {
                finding(Some(row.job_id), format!("an answer that was given out is lost: {call:?}, {row:?}"));
            }
        }
        for (call, job) in &self.unbooked {
            if evidence.may_be_lost(call) {
                lost.push(call);
            } else {
                finding(*job, format!("a call is not on the ledger: {call:?}"));
            }
        }
        let mut unsent: BTreeMap<String, u64> = BTreeMap::new();
        for row in &self.uncalled {
            let class = row.class.as_deref().unwrap_or("accepted");
            *unsent.entry([class, row.detail.as_deref().unwrap_or("")].join(" ")).or_default() += 1;
            let paused = pauses.iter().any(|pause| pause.meets(row.started, row.ended));
            let excused = row.request_id.is_none()
                && match class {
                    "abandoned" | "unreachable" => true,
                    // It was stopped before it had sent anything, and found its time over. Or its call is taken for
                    // another's, whose row is lost.
                    "timeout" | "network" => paused || evidence.is_lost_claim(row),
                    _ => false,
                };
            if !excused || row.cost_nanos != Some(0) {
                finding(Some(row.job_id), format!("a row without a call: {row:?}"));
            }
        }
        table.add("calls at the providers", self.pairs.len() + self.unbooked.len());
        table.add(
            "  on the ledger by their request id",
            self.pairs.iter().filter(|(_, r)| r.request_id.is_some()).count(),
        );
        let late = self.pairs.iter().filter(|(_, row)| row.is("abandoned", Some("late"))).count();
        table.add("    of them good and late, so that another was used", late);
        table.add("  on the ledger as cut", self.pairs.iter().filter(|(_, row)| row.request_id.is_none()).count());
        table.add("    of them with a worker that died", placeholders);
        table.add("  not on the ledger", self.unbooked.len());
        table.add("  lost with what the database has lost", lost.len());
        table.add("  answered well for jobs that are lost", of_lost_jobs);
        if !lost.is_empty() {
            let names: Vec<&str> = lost.iter().map(|call| call.request_id.as_str()).collect();
            eprintln!("chaos: calls that the database has lost: {}", names.join(", "));
        }
        table.add("answers given out in full that no row has", lost_answers.len());
        let spans = [
            ("at most a tenth of a second before their worker was killed", 0, 100),
            ("at most a second before, while the database did not answer", 100, 1_000),
            ("longer before, while the database did not answer", 1_000, IN_HAND),
            ("longer before, their worker hung or had no spool", IN_HAND, i64::MAX),
        ];
        for (name, from, until) in spans {
            let count = lost_answers.iter().filter(|age| (from..until).contains(*age)).count();
            table.add(format!("  {name}"), count);
        }
        for (class, count) in unsent {
            table.add(format!("rows without a call: {class}"), count);
        }
        let charged =
            |calls: &mut dyn Iterator<Item = &CallRecord>| calls.filter_map(|call| call.nano_usd).sum::<u64>();
        table.add("nano-dollars charged by the providers", charged(&mut evidence.calls.iter()));
        table.add("  on the ledger as cost", same_money);
        table.add("  on the ledger as uncertain", uncertain_money);
        table.add("  not on the ledger", charged(&mut self.unbooked.iter().map(|(call, _)| *call)));
        table.add("  lost with what the database has lost", charged(&mut lost.iter().copied()));
    }
}
