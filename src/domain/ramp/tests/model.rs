//! A provider and processes that keep it busy, in made-up time. Nothing of this is random: the numbers come from a
//! hash.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "made-up times are small and positive"
)]

use crate::domain::ramp::Ramp;
use crate::domain::tempo::{Tempo, Took};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

const SECOND: u64 = 1_000_000;
/// Nothing is counted until the load has settled.
const WARM_UP: u64 = 20 * SECOND;
/// The time between the starts of two processes.
const BETWEEN: u64 = 3 * SECOND;

/// The limits of the provider, and how long it takes.
#[derive(Clone, Copy)]
pub(super) struct Provider {
    pub concurrency: Option<u32>,
    pub per_second: Option<f64>,
    /// This many calls at once are answered at full speed; more share that speed between them.
    pub knee: Option<f64>,
    /// The median time of an answer, in seconds; the distribution is lognormal.
    pub median: f64,
    pub sigma: f64,
    /// Answers have up to 1,000 tokens, and take time in proportion.
    pub by_length: bool,
    /// From the first number of seconds on, everything takes the second number of times as long.
    pub slower: Option<(f64, f64)>,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            concurrency: None,
            per_second: None,
            knee: None,
            median: 0.1,
            sigma: 0.3,
            by_length: false,
            slower: None,
        }
    }
}

/// The result after the warm-up.
#[derive(Debug)]
pub(super) struct Seen {
    /// Calls at work at the provider, on average.
    pub inside: f64,
    pub per_second: f64,
    /// Good calls by process.
    pub shares: Vec<u64>,
    pub refused: u64,
}

impl Seen {
    pub(super) fn refused_share(&self) -> f64 {
        let good: u64 = self.shares.iter().sum();
        self.refused as f64 / (good + self.refused).max(1) as f64
    }
}

#[derive(Default)]
struct Process {
    ramp: Ramp,
    tempo: Tempo,
    running: u32,
    blocked_until: u64,
    alone: u32,
}

/// An event of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Look,
    Refused { era: u64 },
    Answered { era: u64, micros: u64, tokens: i64 },
}

pub(super) struct Model {
    provider: Provider,
    seed: u64,
    inside: u32,
    level: f64,
    level_at: u64,
}

impl Model {
    pub(super) fn new(provider: Provider) -> Self {
        Self { provider, seed: 88_172_645_463_325_252, inside: 0, level: 20.0, level_at: 0 }
    }

    /// How long a call takes on average while there is room.
    pub(super) fn mean_seconds(&self) -> f64 {
        self.provider.median * (self.provider.sigma * self.provider.sigma / 2.0).exp()
    }

    fn chance(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A call arrives: how many microseconds it takes, and how many tokens it has; `None` when it is refused.
    fn arrive(&mut self, now: u64) -> Option<(u64, i64)> {
        if self.provider.concurrency.is_some_and(|most| self.inside >= most) {
            return None;
        }
        if let Some(per_second) = self.provider.per_second {
            self.level = (self.level + (now - self.level_at) as f64 / SECOND as f64 * per_second).min(20.0);
            self.level_at = now;
            if self.level < 1.0 {
                return None;
            }
            self.level -= 1.0;
        }
        self.inside += 1;
        let normal = (-2.0 * self.chance().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * self.chance()).cos();
        let mut seconds = self.provider.median * (self.provider.sigma * normal).exp();
        let mut tokens = 16;
        if self.provider.by_length {
            let length = self.chance().powi(3) * 1_000.0;
            seconds *= (length + 40.0) / 100.0;
            tokens = length as i64;
        }
        seconds *= self.provider.knee.map_or(1.0, |knee| (f64::from(self.inside) / knee).max(1.0));
        if let Some((from, factor)) = self.provider.slower
            && now as f64 > from * SECOND as f64
        {
            seconds *= factor;
        }
        Some(((seconds * SECOND as f64) as u64, tokens))
    }

    /// Lets this many processes work for this many seconds.
    pub(super) fn run(mut self, processes: usize, seconds: f64) -> Seen {
        let end = WARM_UP + (seconds * SECOND as f64) as u64;
        let mut all: Vec<Process> = (0..processes).map(|_| Process::default()).collect();
        let mut events = BinaryHeap::new();
        for index in 0..processes {
            events.push(Reverse((index as u64 * BETWEEN, index, Event::Look)));
        }
        let mut seen = Seen { inside: 0.0, per_second: 0.0, shares: vec![0; processes], refused: 0 };
        let (mut area, mut before) = (0.0, 0);
        while let Some(Reverse((now, index, event))) = events.pop().filter(|Reverse((now, ..))| *now < end) {
            let counts = now >= WARM_UP;
            if counts {
                area += f64::from(self.inside) * (now - before.max(WARM_UP)) as f64;
            }
            before = now;
            let process = &mut all[index];
            match event {
                Event::Look => {}
                Event::Refused { era } => {
                    seen.refused += u64::from(counts);
                    if process.ramp.refused(era, process.running) {
                        process.blocked_until = now + (SECOND << process.alone.min(6));
                        process.alone += 1;
                        events.push(Reverse((process.blocked_until, index, Event::Look)));
                    }
                    process.running -= 1;
                }
                Event::Answered { era, micros, tokens } => {
                    self.inside -= 1;
                    seen.shares[index] += u64::from(counts);
                    if era == process.ramp.era() {
                        let took = Took { time: Duration::from_micros(micros), output_tokens: tokens };
                        if let Some(bearable) = process.tempo.learn(took, process.ramp.limit()) {
                            process.ramp.slowed(era, process.running, bearable);
                        }
                    }
                    process.ramp.passed(era, process.running);
                    process.alone = 0;
                    process.running -= 1;
                }
            }
            while process.running < process.ramp.limit() && now >= process.blocked_until {
                process.running += 1;
                let era = process.ramp.era();
                events.push(Reverse(match self.arrive(now) {
                    Some((micros, tokens)) => (now + micros, index, Event::Answered { era, micros, tokens }),
                    None => (now + SECOND / 1_000, index, Event::Refused { era }),
                }));
            }
        }
        seen.inside = area / (end - WARM_UP) as f64;
        seen.per_second = seen.shares.iter().sum::<u64>() as f64 / seconds;
        seen
    }
}
