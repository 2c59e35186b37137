//! The JSON schemas of requests. They are compiled away from the threads on which everything else runs, a few at a
//! time, in bounded memory, and once for all jobs that bring the same schema.

use crate::domain::json_schema::Schema;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Schemas compiled at the same time; other work done aside has the same bound of its own.
const AT_ONCE: usize = 2;

/// Kilobytes that all schemas in use may take together: 128 MB.
const ROOM_KB: usize = 128 << 10;

/// How long a job waits for room before it goes back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compiling takes a second or two at most on an idle machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Schemas that are remembered although no job uses them now: this many, each of at most so many bytes.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 256 << 10;

/// Schemas that are searched for an equal one, at most.
const KNOWN: usize = 256;

/// The schemas of one process.
#[derive(Debug)]
pub(super) struct Schemas {
    known: Mutex<Known>,
    room: Arc<Semaphore>,
    compiling: Arc<Semaphore>,
    /// Separate, so that an answer that was paid for does not wait for another job's schema.
    aside: Arc<Semaphore>,
    /// Bytes that the schemas in use take together.
    bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Known {
    /// Each with the hash of its source, the latest last.
    all: VecDeque<(u64, Weak<Compiled>)>,
    kept: VecDeque<Arc<Compiled>>,
}

/// A schema, and the room that it occupies.
#[derive(Debug)]
pub(super) struct Compiled {
    source: Value,
    schema: Schema,
    users: AtomicUsize,
    _room: OwnedSemaphorePermit,
}

/// A schema in the hands of a job.
#[derive(Debug)]
pub(super) struct InUse {
    compiled: Arc<Compiled>,
    bytes: Arc<AtomicUsize>,
}

/// Why a job has no schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoSchema {
    /// It is no valid schema, or too large; the reason in words.
    Unfit(String),
    /// The schemas of other jobs take all the room.
    NoRoom,
}

impl Schemas {
    /// An empty set.
    pub(super) fn new() -> Self {
        Self {
            known: Mutex::default(),
            room: Arc::new(Semaphore::new(ROOM_KB)),
            compiling: Arc::new(Semaphore::new(AT_ONCE)),
            aside: Arc::new(Semaphore::new(AT_ONCE)),
            bytes: Arc::default(),
        }
    }

    /// Bytes that the schemas of jobs in hand take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Compiles a schema, or returns the one that another job with the same schema has compiled.
    ///
    /// # Errors
    /// Why the schema cannot be used.
    pub(super) async fn compile(&self, source: &Value) -> Result<InUse, NoSchema> {
        let hash = hash_of(source);
        if let Some(known) = self.find(hash, source) {
            return Ok(known);
        }
        let most = Schema::most_bytes(source).map_err(NoSchema::Unfit)?;
        let most_kb = most.div_ceil(1024).min(ROOM_KB);
        let most_kb = u32::try_from(most_kb).unwrap_or(u32::MAX);
        let found = tokio::time::timeout(PATIENCE, Arc::clone(&self.room).acquire_many_owned(most_kb)).await;
        let Ok(Ok(mut room)) = found else { return Err(NoSchema::NoRoom) };
        // Many jobs may have waited here with the same schema.
        if let Some(known) = self.find(hash, source) {
            return Ok(known);
        }
        let threads = Arc::clone(&self.compiling).acquire_owned().await;
        if let Some(known) = self.find(hash, source) {
            return Ok(known);
        }
        let source = source.clone();
        let compiling = tokio::task::spawn_blocking(move || {
            // Held as long as the compilation takes, even when the caller has given up.
            let _threads = threads;
            let schema = Schema::compile(&source);
            (source, schema)
        });
        let (source, schema) = match tokio::time::timeout(LONGEST, compiling).await {
            Ok(Ok((source, schema))) => (source, schema.map_err(NoSchema::Unfit)?),
            Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            Err(_) => return Err(NoSchema::Unfit("takes too long to compile".to_owned())),
        };
        let spare = (most_kb as usize).saturating_sub(schema.weight().div_ceil(1024).max(1));
        drop(room.split(spare));
        let compiled = Arc::new(Compiled { source, schema, users: AtomicUsize::new(0), _room: room });
        self.remember(hash, &compiled);
        Ok(self.hand_out(compiled))
    }

    /// Runs slow work where it blocks nothing else.
    pub(super) async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let threads = Arc::clone(&self.aside).acquire_owned().await;
        let working = tokio::task::spawn_blocking(move || {
            let _threads = threads;
            work()
        });
        match working.await {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    fn find(&self, hash: u64, source: &Value) -> Option<InUse> {
        let alike: Vec<Arc<Compiled>> = {
            let known = self.known();
            known.all.iter().filter(|(other, _)| *other == hash).filter_map(|(_, schema)| schema.upgrade()).collect()
        };
        alike.into_iter().find(|compiled| compiled.source == *source).map(|compiled| self.hand_out(compiled))
    }

    fn remember(&self, hash: u64, compiled: &Arc<Compiled>) {
        let mut known = self.known();
        known.all.retain(|(_, schema)| schema.strong_count() > 0);
        known.all.push_back((hash, Arc::downgrade(compiled)));
        if known.all.len() > KNOWN {
            known.all.pop_front();
        }
        if compiled.schema.weight() <= KEPT_BYTES {
            known.kept.push_back(Arc::clone(compiled));
            if known.kept.len() > KEPT {
                known.kept.pop_front();
            }
        }
    }

    fn hand_out(&self, compiled: Arc<Compiled>) -> InUse {
        if compiled.users.fetch_add(1, Ordering::AcqRel) == 0 {
            self.bytes.fetch_add(compiled.schema.weight(), Ordering::AcqRel);
        }
        InUse { compiled, bytes: Arc::clone(&self.bytes) }
    }
}

impl std::ops::Deref for InUse {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        &self.compiled.schema
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.compiled.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.bytes.fetch_sub(self.compiled.schema.weight(), Ordering::AcqRel);
        }
    }
}

/// A hash that tells schemas apart. Equal schemas have equal hashes, regardless of the order of their members.
fn hash_of(schema: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_into(schema, &mut hasher);
    hasher.finish()
}

fn hash_into(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Null => 0_u8.hash(hasher),
        Value::Bool(flag) => flag.hash(hasher),
        Value::Number(number) => number.hash(hasher),
        Value::String(text) => text.hash(hasher),
        Value::Array(items) => {
            items.len().hash(hasher);
            for item in items {
                hash_into(item, hasher);
            }
        }
        Value::Object(members) => {
            members.len().hash(hasher);
            let sum = members.iter().fold(0_u64, |sum, (name, member)| {
                let mut hasher = DefaultHasher::new();
                name.hash(&mut hasher);
                hash_into(member, &mut hasher);
                sum.wrapping_add(hasher.finish())
            });
            sum.hash(hasher);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn the_same_schema_is_compiled_once_and_counts_once() {
        let schemas = Schemas::new();
        let one = schemas.compile(&json!({"type": "object", "required": ["a"]})).await.unwrap();
        let weight = schemas.bytes();
        assert!(weight > 0);
        let same = schemas.compile(&json!({"required": ["a"], "type": "object"})).await.unwrap();
        assert!(Arc::ptr_eq(&one.compiled, &same.compiled));
        assert_eq!(schemas.bytes(), weight);
        let other = schemas.compile(&json!({"type": "object", "required": ["b"]})).await.unwrap();
        assert!(!Arc::ptr_eq(&one.compiled, &other.compiled));
        assert!(one.check(&json!({"b": 1})).is_err() && other.check(&json!({"b": 1})).is_ok());
        drop((one, same, other));
        assert_eq!(schemas.bytes(), 0);
        // The schema is remembered for a while all the same.
        let again = schemas.compile(&json!({"type": "object", "required": ["a"]})).await.unwrap();
        assert_eq!((schemas.bytes(), again.check(&json!({})).is_err()), (weight, true));
    }

    #[tokio::test]
    async fn what_is_none_or_too_much_is_told() {
        let schemas = Schemas::new();
        for (schema, reason) in
            [(json!({"type": 5}), "is not valid"), (json!({"enum": vec![1; 60_000]}), "has more than")]
        {
            match schemas.compile(&schema).await {
                Err(NoSchema::Unfit(words)) => assert!(words.contains(reason), "{words}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((schemas.bytes(), schemas.room.available_permits()), (0, ROOM_KB));
    }

    #[tokio::test(start_paused = true)]
    async fn schemas_that_would_take_more_than_there_is_wait_for_each_other_or_are_sent_away() {
        let schemas = Schemas::new();
        let all = Arc::clone(&schemas.room).acquire_many_owned(u32::try_from(ROOM_KB).unwrap()).await.unwrap();
        let schema = json!({"type": "object"});
        assert_eq!(schemas.compile(&schema).await.map(|_| ()), Err(NoSchema::NoRoom));
        let (found, ()) = tokio::join!(schemas.compile(&schema), async {
            tokio::task::yield_now().await;
            drop(all);
        });
        assert!(found.is_ok());
        // Reserved room that the schema turned out not to need is free again.
        assert!(schemas.room.available_permits() > ROOM_KB - 10);
    }
}
