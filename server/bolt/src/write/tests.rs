use std::io;

use super::*;

type Rows<'a> = &'a [(&'a [u8], &'a [u8])];

fn measure(buckets: &[(&[u8], Rows<'_>)]) -> Result<Layout, WriteError> {
    let mut measure = Measure::new(PageSize::new(1024).unwrap());
    for (name, rows) in buckets {
        measure.bucket(name)?;
        for (key, value) in *rows {
            measure.row(key.len(), value.len())?;
        }
    }
    measure.finish()
}

fn write(layout: Layout, buckets: &[(&[u8], Rows<'_>)]) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer::new(Vec::new(), layout)?;
    for (name, rows) in buckets {
        writer.bucket(name)?;
        for (key, value) in *rows {
            writer.row(key, value)?;
        }
    }
    writer.finish()
}

const ROWS: Rows<'static> = &[(b"a", b"1"), (b"b", b"22"), (b"c", b"")];

#[test]
fn the_file_has_the_length_that_was_measured() {
    let layout = measure(&[(b"one", ROWS), (b"two", &[])]).unwrap();
    // Metas, freelist, a leaf for each bucket, the root bucket's.
    assert_eq!(layout.file_len(), 6 * 1024);
    let file = write(layout, &[(b"one", ROWS), (b"two", &[])]).unwrap();
    assert_eq!(file.len(), 6 * 1024);
}

#[test]
fn a_file_without_buckets_is_valid() {
    let file = write(measure(&[]).unwrap(), &[]).unwrap();
    assert_eq!(crate::read_all(&file).unwrap(), crate::Summary::default());
}

#[test]
fn other_rows_in_the_second_pass_are_refused() {
    let layout = measure(&[(b"one", ROWS), (b"two", ROWS)]).unwrap();
    let others: [Rows<'_>; 6] = [
        &[],
        &ROWS[..2],
        &[(b"a", b"1"), (b"b", b"22"), (b"c", b""), (b"d", b"")],
        &[(b"a", b"1"), (b"b", b"223"), (b"c", b"")],
        &[(b"a", b"1"), (b"b", b""), (b"c", b"22")],
        &[(b"a", b""), (b"b", b"22"), (b"cc", b"")],
    ];
    for rows in others {
        for buckets in [[(&b"one"[..], rows), (b"two", ROWS)], [(b"one", ROWS), (b"two", rows)]] {
            let error = write(layout.clone(), &buckets).unwrap_err();
            assert!(matches!(error, WriteError::RowsChanged { .. }), "{rows:?}: {error}");
        }
    }
    write(layout, &[(b"one", ROWS), (b"two", &[(b"x", b"9"), (b"y", b"99"), (b"z", b"")])]).unwrap();
}

#[test]
fn other_buckets_in_the_second_pass_are_refused() {
    let layout = measure(&[(b"one", ROWS), (b"two", ROWS)]).unwrap();
    let others: [&[(&[u8], Rows<'_>)]; 4] =
        [&[], &[(b"one", ROWS)], &[(b"two", ROWS), (b"one", ROWS)], &[(b"one", ROWS), (b"two", ROWS), (b"two2", &[])]];
    for buckets in others {
        let error = write(layout.clone(), buckets).unwrap_err();
        assert!(matches!(error, WriteError::BucketsChanged { .. }), "{error}");
    }
    let error = write(layout, &[(b"one", ROWS)]).unwrap_err();
    assert_eq!(error.to_string(), "bucket 1 was two in the first pass, none in the second");
}

#[test]
fn rows_that_need_more_pages_than_measured_are_refused() {
    // The same lengths in another order: a small row and a large one share a page, two large ones do not.
    let (keys, large, small) = ((1..=40_u8).collect::<Vec<_>>(), [0; 650], [0; 300]);
    let pick = |is_large: fn(usize) -> bool| {
        let value = |at| if is_large(at) { &large[..] } else { &small[..] };
        keys.chunks(1).enumerate().map(|(at, key)| (key, value(at))).collect::<Vec<_>>()
    };
    let (paired, parted) = (pick(|at| at % 2 == 1), pick(|at| at >= 20));
    let error = write(measure(&[(b"b", &paired)]).unwrap(), &[(b"b", &parted)]).unwrap_err();
    assert!(matches!(error, WriteError::PagesChanged { pages: 25 }), "{error}");
}

#[test]
fn order_and_lengths_are_checked() {
    let mut pass = Measure::new(PageSize::DEFAULT);
    assert!(matches!(pass.row(1, 1), Err(WriteError::NoBucket)));
    assert!(matches!(pass.bucket(b""), Err(WriteError::BucketNameLen(0))));
    assert!(matches!(pass.bucket(&[1; KEY_LEN_MAX + 1]), Err(WriteError::BucketNameLen(_))));
    pass.bucket(b"m").unwrap();
    assert!(matches!(pass.bucket(b"m"), Err(WriteError::BucketOrder { .. })));
    assert!(matches!(pass.bucket(b"a"), Err(WriteError::BucketOrder { .. })));
    assert!(matches!(pass.row(0, 1), Err(WriteError::KeyLen { len: 0, .. })));
    assert!(matches!(pass.row(KEY_LEN_MAX + 1, 1), Err(WriteError::KeyLen { .. })));
    assert!(matches!(pass.row(1, VALUE_LEN_MAX + 1), Err(WriteError::ValueLen { .. })));
    pass.row(KEY_LEN_MAX, VALUE_LEN_MAX).unwrap();
    for index in 1..BUCKETS_MAX {
        pass.bucket(format!("n{index:03}").as_bytes()).unwrap();
    }
    assert!(matches!(pass.bucket(b"o"), Err(WriteError::TooManyBuckets)));

    for second in [b"a", b"b"] {
        let layout = measure(&[(b"one", &[(b"b", b""), (second, b"")])]).unwrap();
        let error = write(layout, &[(b"one", &[(b"b", b""), (second, b"")])]).unwrap_err();
        assert_eq!(error.to_string(), "bucket one, row 1: the key does not come after the one before");
    }
}

/// Takes so many bytes, then no more.
struct Full(usize);

impl io::Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_goes_on_after_an_error() {
    let value = [7; 700];
    let rows: Rows<'_> = &[(b"a", &value), (b"b", &value), (b"c", &value)];
    let layout = measure(&[(b"one", rows)]).unwrap();
    assert!(matches!(Writer::new(Full(2048), layout.clone()), Err(WriteError::Io(_))));
    let mut writer = Writer::new(Full(3072), layout).unwrap();
    writer.bucket(b"one").unwrap();
    writer.row(b"a", &value).unwrap();
    assert!(matches!(writer.row(b"b", &value), Err(WriteError::Io(_))));
    assert!(matches!(writer.row(b"b", &value), Err(WriteError::Failed)));
    assert!(matches!(writer.finish(), Err(WriteError::Failed)));
}
