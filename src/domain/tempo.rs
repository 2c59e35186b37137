//! How long a target's answers take, compared with what is usual for it.

use std::time::Duration;

/// Until its first token a call takes as long as for about so many tokens more. So answers of a word and of a page can
/// be compared.
const FRAME_TOKENS: f64 = 50.0;
/// Calls that are judged together, at least and at most.
const ROUND: (f64, f64) = (16.0, 1_000.0);
/// Clearly longer than usual is so many times as long.
const SLOW: f64 = 1.75;
/// One call counts as so many times longer or shorter than usual at most.
const OUTLIER: f64 = 4.0;
/// Aimed at when it was too much: a little below what the usual time would bear.
const AIM: f64 = 0.9;

/// What a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// From sending it to the whole answer.
    pub time: Duration,
    /// Tokens of output, reported or estimated; 0 when nothing is known of them.
    pub output_tokens: i64,
}

/// What answers of one target take per token, by geometric means over rounds of calls.
///
/// What is usual is known from the first round, and learned anew only after it was said to be slow, when fewer calls
/// run: compared with a mean that follows along, a load that grows bit by bit would always be usual. So a target that
/// has become slower for good is believed after a few such rounds, and load that makes itself slow is not.
///
/// Guarantees: nothing is said before two rounds; once something is known a single call, however long, moves the mean
/// of a round by no more than a tenth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tempo {
    /// Logarithm of the usual milliseconds per token.
    usual: Option<f64>,
    /// Of this round so far: logarithms, places, calls, and how many calls it has.
    sum: f64,
    places: f64,
    calls: f64,
    round: f64,
    /// It was said to be slow: what comes now tells what is usual.
    after: After,
}

/// Where it stands since it was said to be slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    #[default]
    Nothing,
    /// The short ones of the calls that begin together end first: a round of them is not representative.
    Settling,
    Learning,
}

impl Tempo {
    /// Learns what a call took that began since the number at once was last lowered, where now so many may run at once.
    /// Returns how many would bear about the usual time, if it is clearly longer now.
    #[must_use]
    pub fn learn(&mut self, took: Took, places: u32) -> Option<f64> {
        let tokens = u32::try_from(took.output_tokens.max(0)).unwrap_or(u32::MAX);
        let millis = (took.time.as_secs_f64() * 1_000.0).max(1.0);
        self.add((millis / (f64::from(tokens) + FRAME_TOKENS)).ln(), places)
    }

    /// How long an answer of so many tokens usually takes; `None`: unknown.
    #[must_use]
    pub fn usual(&self, output_tokens: u64) -> Option<Duration> {
        let tokens = f64::from(u32::try_from(output_tokens).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(self.usual?.exp() * (tokens + FRAME_TOKENS) / 1_000.0).ok()
    }

    /// A call had no answer in time. That counts as the longest time of all, once anything is known.
    #[must_use]
    pub fn timed_out(&mut self, places: u32) -> Option<f64> {
        self.add(self.usual? + OUTLIER.ln(), places)
    }

    fn add(&mut self, value: f64, places: u32) -> Option<f64> {
        if self.calls == 0.0 {
            self.round = f64::from(places).clamp(ROUND.0, ROUND.1);
        }
        let bounds = self.usual.map(|usual| (usual - OUTLIER.ln(), usual + OUTLIER.ln()));
        self.sum += bounds.map_or(value, |(least, most)| value.clamp(least, most));
        self.places += f64::from(places);
        self.calls += 1.0;
        if self.calls < self.round {
            return None;
        }
        let (mean, places) = (self.sum / self.calls, self.places / self.calls);
        (self.sum, self.places, self.calls) = (0.0, 0.0, 0.0);
        let Some(usual) = self.usual else {
            self.usual = Some(mean);
            return None;
        };
        match self.after {
            After::Settling => self.after = After::Learning,
            After::Learning => {
                // Less is believed at once, more by half: that fewer calls are no help may be chance.
                self.usual = Some(if mean < usual { mean } else { f64::midpoint(usual, mean) });
                self.after = After::Nothing;
            }
            After::Nothing if mean - usual > SLOW.ln() => {
                self.after = After::Settling;
                // Where a server is at its limit, time is in proportion to the calls at once.
                return Some(places * (usual - mean).exp() * AIM);
            }
            After::Nothing => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
