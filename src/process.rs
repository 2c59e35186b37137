//! This process within the system: how many files it may open, and what others may see of it.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// How many files and sockets a process wants to be able to open. A worker with some thousand calls in flight needs as
/// many.
const DESCRIPTORS: u64 = 65_536;

/// For group and others: nothing that this process makes is writable by its group, or anything at all to others.
const UMASK: Mode = Mode::WGRP.union(Mode::RWXO);

/// Has to be called before anything else, inside a runtime.
///
/// Memory holds keys, prompts and answers, so no dump of it is written, and no other process of this user may read it.
/// A file whose own mode is not set is readable by the group at most. Where the system (a container, a unit's filter of
/// system calls) refuses any of these, the work goes on without them.
pub fn protect() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // A limit of zero does not keep a dump from a program that the kernel pipes it to.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
    // A file that would become larger than this process may write is an error of that write, and not the end of the
    // process. Programs that it starts answer the signal as usual.
    let _ = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
    let usual = rustix::process::umask(UMASK);
    rustix::process::umask(usual | UMASK);
}
