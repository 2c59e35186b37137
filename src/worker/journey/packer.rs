//! The packs of one rung that are being gathered: they wait a moment for others that ask for the same.

use crate::domain::pack::{Company, PackBounds, PackKey};
use crate::domain::{Mend, Packing, Sizes};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// The packs of one rung that are being gathered; `M` is what each job has in them.
pub(in crate::worker) struct Packer<M> {
    bounds: PackBounds,
    wait: Duration,
    open: Mutex<Vec<Arc<OpenPack<M>>>>,
}

/// What the jobs of a pack agree in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accord {
    pub(super) key: PackKey,
    /// The changes that refusals of them have asked for.
    pub(super) mends: Vec<Mend>,
    pub(super) company: Company,
}

/// How much a job brings, or several of them together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) inputs: usize,
    pub(super) sizes: Sizes,
}

/// A pack that is being gathered.
pub(super) struct OpenPack<M> {
    /// Different from those of all other packs of this process.
    pub(super) id: u64,
    accord: Accord,
    gathered: Mutex<(Vec<M>, Load)>,
    /// Notified when no more jobs are to be waited for.
    full: Notify,
}

/// The number of the next pack.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Load {
    /// That of both together. Requests for embeddings generate nothing.
    pub(super) const fn and(self, other: Self) -> Self {
        let sizes = Sizes {
            input: self.sizes.input.saturating_add(other.sizes.input),
            input_at_most: self.sizes.input_at_most.saturating_add(other.sizes.input_at_most),
            cap: Some(0),
            expected_output: 0,
            inputs: self.sizes.inputs.saturating_add(other.sizes.inputs),
        };
        Self { inputs: self.inputs.saturating_add(other.inputs), sizes }
    }

    /// Whether one call may have so much.
    pub(super) fn is_within(&self, bounds: &PackBounds) -> bool {
        bounds.allow(self.inputs, self.sizes.input_at_most.max(self.sizes.input))
    }
}

impl<M> Packer<M> {
    /// Packs within the bounds of the route and of the vendor.
    pub(in crate::worker) fn new(packing: Packing, vendor: PackBounds) -> Self {
        Self { bounds: packing.most.and(vendor), wait: packing.wait, open: Mutex::default() }
    }

    /// The most that one call may have.
    pub(in crate::worker) const fn bounds(&self) -> PackBounds {
        self.bounds
    }

    /// Puts a job into the pack of those that it agrees with, as long as the pack `fits` with it. Returns the pack if
    /// it is a new one, which the caller then has to see to its end.
    pub(super) fn join(
        &self,
        accord: Accord,
        member: M,
        load: Load,
        fits: impl Fn(&Sizes) -> bool,
    ) -> Option<Arc<OpenPack<M>>> {
        let mut open = self.open.lock();
        let known = open.iter().find(|pack| pack.accord == accord).cloned();
        let takes = |pack: &Arc<OpenPack<M>>| {
            let all = pack.gathered.lock().1.and(load);
            all.is_within(&self.bounds) && fits(&all.sizes)
        };
        let (pack, is_new) = match known {
            Some(pack) if takes(&pack) => (pack, false),
            before => {
                if let Some(before) = before {
                    // It has no room for this job, and is not kept waiting for a smaller one.
                    before.leave(&mut open);
                }
                let id = NEXT.fetch_add(1, Ordering::Relaxed);
                let pack =
                    OpenPack { id, accord, gathered: Mutex::new((Vec::new(), Load::default())), full: Notify::new() };
                let pack = Arc::new(pack);
                open.push(Arc::clone(&pack));
                (pack, true)
            }
        };
        let is_full = {
            let mut gathered = pack.gathered.lock();
            let (members, all) = &mut *gathered;
            members.push(member);
            *all = all.and(load);
            let is_complete = pack.accord.company.complete_at().is_some_and(|jobs| members.len() >= jobs);
            is_complete || all.inputs >= self.bounds.inputs
        };
        if is_full {
            pack.leave(&mut open);
        }
        is_new.then_some(pack)
    }

    /// Waits until the pack is full, or has waited long enough; then no more jobs join it.
    pub(super) async fn gather(&self, pack: &Arc<OpenPack<M>>) -> Vec<M> {
        tokio::select! {
            () = pack.full.notified() => {}
            () = tokio::time::sleep(self.wait) => {}
        }
        self.open.lock().retain(|other| !Arc::ptr_eq(other, pack));
        std::mem::take(&mut pack.gathered.lock().0)
    }
}

impl<M> OpenPack<M> {
    /// It waits for no more jobs.
    fn leave(self: &Arc<Self>, open: &mut Vec<Arc<Self>>) {
        open.retain(|other| !Arc::ptr_eq(other, self));
        self.full.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ChatRequest;
    use serde_json::json;
    use tokio::time::Instant;

    const WAIT: Duration = Duration::from_millis(50);

    fn packer(inputs: usize, tokens: Option<u64>) -> Packer<u32> {
        Packer::new(Packing { most: PackBounds { inputs, tokens }, wait: WAIT }, PackBounds::of_inputs(1_000))
    }

    fn accord(dimensions: u32, company: Company) -> Accord {
        let request = ChatRequest::parse(&json!({"input": "a", "dimensions": dimensions})).unwrap();
        Accord { key: PackKey::of(&request).unwrap(), mends: Vec::new(), company }
    }

    fn load(inputs: usize, tokens: u64) -> Load {
        Load { inputs, sizes: Sizes { input: tokens, input_at_most: tokens, ..Sizes::default() } }
    }

    const ANY: fn(&Sizes) -> bool = |_| true;

    /// What was gathered, and after how long.
    async fn gathered(packer: &Packer<u32>, pack: &Arc<OpenPack<u32>>) -> (Vec<u32>, Duration) {
        let began = Instant::now();
        (packer.gather(pack).await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pack_goes_at_once_and_another_one_when_it_has_waited() {
        let packer = packer(4, None);
        let join = |member, inputs| packer.join(accord(4, Company::Any), member, load(inputs, 1), ANY);
        let first = join(1, 2).expect("a new one");
        assert!(join(2, 1).is_none());
        assert!(join(3, 1).is_none());
        assert_eq!(gathered(&packer, &first).await, (vec![1, 2, 3], Duration::ZERO));
        let second = join(4, 1).expect("the first is full");
        assert!(join(5, 1).is_none());
        assert_eq!(gathered(&packer, &second).await, (vec![4, 5], WAIT));
        // A job that finds no room does not wait for that of the pack before it.
        let third = join(6, 3).expect("the second has gone");
        let fourth = join(7, 2).expect("no room in the third");
        assert_eq!(gathered(&packer, &third).await, (vec![6], Duration::ZERO));
        assert_eq!(gathered(&packer, &fourth).await, (vec![7], WAIT));
        assert!(packer.open.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_that_do_not_agree_or_do_not_fit_together_have_packs_of_their_own() {
        let packer = packer(10, Some(100));
        let part = |jobs| Company::Part { pack: 1, part: 0, jobs };
        let packs: Vec<_> = [accord(4, Company::Any), accord(5, Company::Any), accord(4, part(2))]
            .into_iter()
            .map(|accord| packer.join(accord, 1, load(1, 10), ANY).expect("one of its own"))
            .collect();
        // The part of a pack is complete with its last job.
        assert!(packer.join(accord(4, part(2)), 2, load(1, 10), ANY).is_none());
        assert_eq!(gathered(&packer, &packs[2]).await, (vec![1, 2], Duration::ZERO));
        // Tokens are bounded too, and a limit may bound them more.
        assert!(packer.join(accord(4, Company::Any), 3, load(1, 90), ANY).is_none());
        let more = packer.join(accord(4, Company::Any), 4, load(1, 1), ANY).expect("101 tokens are too many");
        assert_eq!(gathered(&packer, &packs[0]).await, (vec![1, 3], Duration::ZERO));
        assert!(packer.join(accord(4, Company::Any), 5, load(1, 1), |sizes| sizes.input < 2).is_some());
        assert_eq!(gathered(&packer, &more).await, (vec![4], Duration::ZERO));
    }
}
