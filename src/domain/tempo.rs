//! How long a target's answers take, compared with its usual time.

use std::time::Duration;

/// The time until the first token, in tokens: about as long as this many more tokens take. With it answers of a word
/// and of a page can be compared.
pub(super) const FRAME_TOKENS: f64 = 50.0;
/// The least and the most calls that are judged together.
const ROUND: (f64, f64) = (16.0, 1_000.0);
/// An answer is clearly slow when it takes this many times the usual time.
const SLOW: f64 = 1.75;
/// One call counts as at most this many times longer or shorter than usual.
const OUTLIER: f64 = 4.0;
/// The part of the bearable number of calls to aim at when it was too much: a little below what the usual time would
/// bear.
const AIM: f64 = 0.9;

/// The time and the size of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// From sending the request to the whole answer.
    pub time: Duration,
    /// Tokens of output, reported or estimated; 0 when nothing is known of them.
    pub output_tokens: i64,
}

/// The time that answers of one target take per token, by geometric means over rounds of calls.
///
/// The first round sets the usual time. It is learned anew only after a slow round, once fewer calls run: compared with
/// a mean that follows along, a load that grows bit by bit would always be usual. So a target that has become slower
/// for good is believed after a few such rounds, and load that makes itself slow is not.
///
/// Guarantees: no verdict comes before two rounds; once something is known a single call, however long, moves the mean
/// of a round by no more than a tenth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tempo {
    /// Logarithm of the usual milliseconds per token.
    usual: Option<f64>,
    /// This round so far: sum of logarithms, sum of places, calls, and the number of calls that make the round.
    sum: f64,
    places: f64,
    calls: f64,
    round: f64,
    /// Whether the target was found slow: the calls that come now set the usual time.
    after: After,
}

/// The stage since the target was found slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum After {
    #[default]
    Nothing,
    /// Of calls that begin together the short ones end first: a round of them is not representative.
    Settling,
    Learning,
}

impl Tempo {
    /// Learns from a call that began since the number at once was last lowered, when `places` may run at once. Returns
    /// how many calls would bear about the usual time, if the time is clearly longer now.
    #[must_use]
    pub fn learn(&mut self, took: Took, places: u32) -> Option<f64> {
        let tokens = u32::try_from(took.output_tokens.max(0)).unwrap_or(u32::MAX);
        let millis = (took.time.as_secs_f64() * 1_000.0).max(1.0);
        self.add((millis / (f64::from(tokens) + FRAME_TOKENS)).ln(), places)
    }

    /// Notes that a call had no answer in time. Once anything is known, that counts as the longest time of all.
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
                // A lower mean is believed at once, a higher one by half: that fewer calls do not help may be chance.
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
