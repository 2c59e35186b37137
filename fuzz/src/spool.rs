//! A spool.

use sluice::journal::{NextItem, Records};
use sluice::worker::settler::Item;

fn read(bytes: &[u8]) {
    let mut records = Records::new(bytes, 0);
    loop {
        let before = records.at();
        match records.read_next() {
            Ok(NextItem::Record(record)) => {
                assert!(records.at() > before);
                let _ = serde_json::from_slice::<Item>(&record);
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// A journal's bytes as they are; what would be one outcome; and the same in a frame that is in order up to its end.
pub fn run(data: &[u8]) {
    read(data);
    let _ = serde_json::from_slice::<Item>(data);
    let length = u32::try_from(data.len()).unwrap();
    let frame = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    read(&[&frame, [0; 4].as_slice(), data].concat());
}
