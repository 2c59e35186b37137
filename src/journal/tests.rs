use super::*;
use proptest::prelude::*;

const PLENTY: u64 = 1 << 30;

fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let alone = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(alone).tempdir().unwrap()
}

/// All records, and the item after them.
fn read(mut records: Records<impl Read>) -> (Vec<Vec<u8>>, NextItem) {
    let mut found = Vec::new();
    loop {
        match records.read_next().unwrap() {
            NextItem::Record(record) => found.push(record),
            end => return (found, end),
        }
    }
}

fn bytes_of(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        write_record(&mut bytes, record).unwrap();
    }
    bytes
}

#[test]
fn what_was_appended_is_read_back_by_the_process_that_takes_it_over() {
    let folder = folder();
    let mut journal = Journal::create(folder.path(), PLENTY, b"first").unwrap();
    let path = journal.path().to_owned();
    journal.append(&[b"second".to_vec(), Vec::new()]).unwrap();
    let behind = journal.size();
    journal.append(&["third"]).unwrap();
    assert_eq!(read(journal.records(behind)), (vec![b"third".to_vec()], NextItem::End));
    assert_eq!(Journal::list(folder.path()).unwrap(), std::slice::from_ref(&path));
    // While it is held no other process gets it.
    assert!(Journal::adopt(&path, PLENTY).unwrap().is_none());
    drop(journal);
    let mut heir = Journal::adopt(&path, PLENTY).unwrap().unwrap();
    let all = [b"first".to_vec(), b"second".to_vec(), Vec::new(), b"third".to_vec()];
    assert_eq!(read(heir.records(0)), (all[..].to_vec(), NextItem::End));
    heir.truncate(behind).unwrap();
    assert_eq!(read(heir.records(0)), (all[..3].to_vec(), NextItem::End));
    heir.remove().unwrap();
    assert!(Journal::adopt(&path, PLENTY).unwrap().is_none());
    assert_eq!(Journal::list(&folder.path().join("missing")).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn its_lock_ends_with_it_also_while_a_process_is_being_started() {
    let folder = folder();
    let journal = Journal::create(folder.path(), PLENTY, b"first").unwrap();
    let path = journal.path().to_owned();
    // What a started process has until it becomes another program.
    let copy = journal.file.try_clone().unwrap();
    drop(journal);
    assert!(Journal::adopt(&path, PLENTY).unwrap().is_some());
    drop(copy);
}

#[test]
fn one_that_is_full_says_so_and_stays_as_it_is() {
    let folder = folder();
    let mut journal = Journal::create(folder.path(), 60, b"first").unwrap();
    journal.append(&[[7; 20]]).unwrap();
    let error = journal.append(&[[8; 20]]).unwrap_err();
    assert!(matches!(error, AppendError::Full { size: 49, max: 60, needed: 32 }), "{error}");
    assert_eq!(read(journal.records(0)).0.len(), 2);
}

#[test]
fn only_one_of_many_takes_it_over() {
    let folder = folder();
    let path = Journal::create(folder.path(), PLENTY, b"first").unwrap().path().to_owned();
    let taken = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let Some(journal) = Journal::adopt(&path, PLENTY).unwrap() else { return 0 };
                    journal.remove().unwrap();
                    1
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>()
    });
    assert_eq!(taken, 1);
}

#[test]
fn a_damaged_one_is_kept_where_it_is_not_in_the_way() {
    let folder = folder();
    let journal = Journal::create(folder.path(), PLENTY, b"first").unwrap();
    let aside = journal.put_aside().unwrap();
    assert!(aside.exists());
    assert_eq!(Journal::list(folder.path()).unwrap(), Vec::<PathBuf>::new());
}

proptest! {
    /// Wherever the writer ended, exactly the records before that place are there.
    #[test]
    fn a_torn_end_costs_the_last_record_alone(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = bytes_of(&records);
        let cut = cut.index(bytes.len() + 1);
        let (found, end) = read(Records::new(&bytes[..cut], 0));
        prop_assert_eq!(&found[..], &records[..found.len()]);
        let whole = bytes_of(&found).len();
        prop_assert_eq!(end, if whole == cut { NextItem::End } else { NextItem::Torn });
        prop_assert!(found.len() == records.len() || bytes_of(&records[..=found.len()]).len() > cut);
    }

    /// A single wrong bit is found, wherever it is: no record is ever read that was not written.
    #[test]
    fn a_wrong_bit_is_noticed(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = bytes_of(&records);
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let (found, end) = read(Records::new(&bytes[..], 0));
        prop_assert!(found.len() < records.len());
        prop_assert_eq!(&found[..], &records[..found.len()]);
        prop_assert_ne!(end, NextItem::End);
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (found, _) = read(Records::new(&bytes[..], 0));
        prop_assert!(bytes_of(&found).len() <= bytes.len());
    }
}

#[test]
fn only_the_folder_itself_is_shut_to_others_and_not_those_above_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = folder();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let usual = root.path().join("usual");
    std::fs::create_dir(&usual).unwrap();
    let dir = root.path().join("state").join("spool");
    Journal::create(&dir, PLENTY, b"first").unwrap();
    assert_eq!((mode(&dir), mode(dir.parent().unwrap())), (0o700, mode(&usual)));
}
