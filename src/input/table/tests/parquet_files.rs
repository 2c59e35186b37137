use super::*;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use std::path::Path;

const SCHEMA: &str = "message schema {
    REQUIRED INT64 id;
    OPTIONAL BYTE_ARRAY text (UTF8);
    REQUIRED DOUBLE score;
    REQUIRED BOOLEAN good;
    REQUIRED INT32 day (DATE);
    REQUIRED INT64 at (TIMESTAMP(NANOS,true));
    REQUIRED INT32 price (DECIMAL(9,2));
}";

/// Writes `groups` groups of two rows each.
fn write(path: &Path, compression: Compression, groups: i64) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, properties.into()).unwrap();
    for group in 0..groups {
        let mut rows = writer.next_row_group().unwrap();
        let mut place = 0;
        while let Some(mut column) = rows.next_column().unwrap() {
            match place {
                0 => drop(column.typed::<Int64Type>().write_batch(&[group * 2, group * 2 + 1], None, None)),
                1 => {
                    let text = ByteArray::from(format!("text {group} {}", "x".repeat(300)).into_bytes());
                    drop(column.typed::<ByteArrayType>().write_batch(&[text], Some(&[1, 0]), None));
                }
                2 => drop(column.typed::<DoubleType>().write_batch(&[0.1, f64::NAN], None, None)),
                3 => drop(column.typed::<BoolType>().write_batch(&[true, false], None, None)),
                4 => drop(column.typed::<Int32Type>().write_batch(&[19_723, -1], None, None)),
                5 => drop(column.typed::<Int64Type>().write_batch(&[1_700_000_000_000_000_001, 0], None, None)),
                _ => drop(column.typed::<Int32Type>().write_batch(&[1_250, -5], None, None)),
            }
            column.close().unwrap();
            place += 1;
        }
        rows.close().unwrap();
    }
    writer.close().unwrap();
}

fn read(path: &Path, asking: Asking) -> Result<Vec<Result<InputJob, String>>, String> {
    parquet(std::fs::File::open(path).unwrap(), Arc::default(), asking, Requests::default()).map(told)
}

#[test]
fn rows_of_all_groups_are_read_and_values_keep_their_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let zstd = Compression::ZSTD(ZstdLevel::default());
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd, Compression::LZ4_RAW] {
        write(&path, compression, 3);
        let found = read(&path, with_id(prompt("{id}: {text}"), "id")).unwrap();
        let found = jobs(&found);
        assert_eq!(found.len(), 6);
        let long = format!("text 1 {}", "x".repeat(300));
        assert_eq!(
            found[2],
            (
                3,
                Some("2"),
                format!("{{\"prompt\":\"2: {long}\"}}").as_str(),
                format!(
                    "{{\"text\":\"{long}\",\"score\":0.1,\"good\":true,\"day\":\"2024-01-01\",\
                     \"at\":\"2023-11-14T22:13:20.000000001Z\",\"price\":12.50}}"
                )
                .as_str()
            )
        );
        assert_eq!(
            found[3].3,
            "{\"text\":null,\"score\":null,\"good\":false,\"day\":\"1969-12-31\",\"at\":\"1970-01-01T00:00:00Z\",\
             \"price\":-0.05}"
        );
    }
}

#[test]
fn the_rows_of_their_author_have_numbers_that_json_has_no_form_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write(&path, Compression::SNAPPY, 1);
    let rows = crate::input::InputSource::new(Some(&path))
        .author_rows(None, None, crate::input::ReadLimits::default())
        .unwrap();
    let scores: Vec<AuthorCell> = rows.map(|row| row.unwrap()[2].clone()).collect();
    assert_eq!(scores, [AuthorCell::Json("0.1".to_owned()), AuthorCell::NotFinite("NaN")]);
    // In metadata it is null, and so a row is found again by its content.
    assert_eq!(scores[1].as_text(), "");
}

#[test]
fn a_file_that_is_cut_damaged_or_something_else_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write(&path, Compression::SNAPPY, 50);
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 3, 7, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let told = read(&path, prompt("{text}")).unwrap_err();
        assert!(told.starts_with("is no Parquet file, or one that was cut short"), "{cut}: {told}");
    }
    // The description at the end is whole, and what it describes is not.
    let mut damaged = whole.clone();
    damaged[2_000..4_000].fill(0xa5);
    std::fs::write(&path, &damaged).unwrap();
    let found = read(&path, prompt("{id}")).unwrap();
    let told = found.last().unwrap().as_ref().unwrap_err();
    assert!(told.contains(": cannot be read any further: the Parquet file is damaged: "), "{told}");
    assert!(found.len() < 100);
    std::fs::write(&path, &whole).unwrap();
    let told = read(&path, prompt("{txt}")).unwrap_err();
    assert!(told.starts_with("--prompt names the column `txt`, which there is not. There are: `id`, `text`, `score`"));
    assert_eq!(read(&path, prompt("{text}{id}")).unwrap().len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_makes_the_reader_fail_otherwise_than_by_an_error(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, Compression::SNAPPY, 4);
        let mut bytes = std::fs::read(&path).unwrap();
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        let _ = read(&path, prompt("{id} {text}"));
    }
}
