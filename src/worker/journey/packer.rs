//! The packs of one rung that are being gathered: calls that wait a moment for others that ask for the same.

use super::call::{Call, Came};
use crate::domain::pack::{Company, PackBounds, PackKey};
use crate::domain::shut::Shut;
use crate::domain::{Mend, Packing, Sizes};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// The packs of one rung that are being gathered.
pub(in crate::worker) struct Packer {
    bounds: PackBounds,
    wait: Duration,
    open: Mutex<Vec<Arc<OpenPack>>>,
}

/// A pack that is being gathered.
pub(super) struct OpenPack {
    /// Different from those of all other packs of this process.
    pub(super) id: u64,
    key: PackKey,
    /// The changes that refusals of its jobs have asked for.
    mends: Vec<Mend>,
    company: Company,
    gathered: Mutex<Gathered>,
    /// Notified when no more jobs are to be waited for.
    full: Notify,
}

/// The jobs of a pack, and how much they have together.
#[derive(Default)]
struct Gathered {
    members: Vec<Member>,
    inputs: usize,
    sizes: Sizes,
}

/// A job in a pack, from the side of the pack.
pub(super) struct Member {
    pub(super) call: Call,
    /// How many inputs it has.
    pub(super) inputs: usize,
    pub(super) sizes: Sizes,
    /// Tells it whether the gate has let the pack through.
    pub(super) admitted: oneshot::Sender<Result<(), Shut>>,
    /// Says that its call is noted, and brings what tells when it is not needed any more; closed: it goes no further.
    pub(super) noted: oneshot::Receiver<CancellationToken>,
    pub(super) outcome: oneshot::Sender<Came>,
}

/// The place of a job in a pack, from the side of the job.
pub(super) struct Passage {
    pub(super) admitted: oneshot::Receiver<Result<(), Shut>>,
    pub(super) noted: oneshot::Sender<CancellationToken>,
    pub(super) outcome: oneshot::Receiver<Came>,
}

/// The number of the next pack.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Member {
    /// Both sides of a job's place in a pack.
    pub(super) fn of(call: Call, inputs: usize, sizes: Sizes) -> (Self, Passage) {
        let (admitted, is_admitted) = oneshot::channel();
        let (is_noted, noted) = oneshot::channel();
        let (outcome, came) = oneshot::channel();
        let passage = Passage { admitted: is_admitted, noted: is_noted, outcome: came };
        (Self { call, inputs, sizes, admitted, noted, outcome }, passage)
    }
}

/// The sizes of one call for all these requests, which generate nothing.
pub(super) fn together<'a>(sizes: impl IntoIterator<Item = &'a Sizes>) -> Sizes {
    sizes.into_iter().fold(Sizes { cap: Some(0), ..Sizes::default() }, |sum, sizes| Sizes {
        input: sum.input.saturating_add(sizes.input),
        input_at_most: sum.input_at_most.saturating_add(sizes.input_at_most),
        ..sum
    })
}

impl Gathered {
    /// How much they have with one more.
    fn with(&self, member: &Member) -> (usize, Sizes) {
        (self.inputs.saturating_add(member.inputs), together([&self.sizes, &member.sizes]))
    }

    fn add(&mut self, member: Member) {
        (self.inputs, self.sizes) = self.with(&member);
        self.members.push(member);
    }
}

impl Packer {
    /// Packs within the bounds of the route and of the vendor.
    pub(in crate::worker) fn new(packing: Packing, vendor: PackBounds) -> Self {
        Self { bounds: packing.most.and(vendor), wait: packing.wait, open: Mutex::default() }
    }

    /// The most that one call may have.
    pub(in crate::worker) fn bounds(&self) -> PackBounds {
        self.bounds
    }

    /// Puts a job into the pack of those that ask for the same, as long as the pack `fits` with it. Returns the pack if
    /// it is a new one, which the caller then has to see to its end.
    pub(super) fn join(
        &self,
        key: PackKey,
        member: Member,
        fits: impl Fn(&Sizes) -> bool,
    ) -> Option<Arc<OpenPack>> {
        let (mends, company) = (member.call.state.mends().to_vec(), member.call.company);
        let mut open = self.open.lock();
        let is_for = |pack: &Arc<OpenPack>| pack.company == company && pack.key == key && pack.mends == mends;
        let place = open.iter().position(is_for);
        let known = place.and_then(|place| open.get(place)).cloned();
        let (pack, is_new) = match known {
            Some(pack) if self.takes(&pack.gathered.lock(), &member, fits) => (pack, false),
            before => {
                if let (Some(before), Some(place)) = (before, place) {
                    // It has no room for this job, and is not kept waiting for a smaller one.
                    open.swap_remove(place);
                    before.full.notify_one();
                }
                let (gathered, full) = (Mutex::default(), Notify::new());
                let id = NEXT.fetch_add(1, Ordering::Relaxed);
                let pack = Arc::new(OpenPack { id, key, mends, company, gathered, full });
                open.push(Arc::clone(&pack));
                (pack, true)
            }
        };
        let mut gathered = pack.gathered.lock();
        gathered.add(member);
        let jobs = gathered.members.len();
        let is_full = gathered.inputs >= self.bounds.inputs || company.complete_at().is_some_and(|all| jobs >= all);
        drop(gathered);
        if is_full {
            open.retain(|other| !Arc::ptr_eq(other, &pack));
            pack.full.notify_one();
        }
        is_new.then_some(pack)
    }

    /// Whether one more job fits with those that are gathered.
    fn takes(&self, gathered: &Gathered, member: &Member, fits: impl Fn(&Sizes) -> bool) -> bool {
        let (inputs, sizes) = gathered.with(member);
        self.bounds.allow(inputs, sizes.input_at_most.max(sizes.input)) && fits(&sizes)
    }

    /// Waits until the pack is full, or has waited long enough; then no more jobs join it. Those are left out that have
    /// gone meanwhile.
    pub(super) async fn gather(&self, pack: &Arc<OpenPack>) -> Vec<Member> {
        tokio::select! {
            () = pack.full.notified() => {}
            () = tokio::time::sleep(self.wait) => {}
        }
        self.open.lock().retain(|other| !Arc::ptr_eq(other, pack));
        let mut members = std::mem::take(&mut *pack.gathered.lock()).members;
        members.retain(|member| !member.admitted.is_closed());
        members
    }
}
