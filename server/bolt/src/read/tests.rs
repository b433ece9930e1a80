//! A small valid file is damaged in one place at a time, and the verdict names page, offset and fault.

use super::*;
use crate::Measure;
use crate::Writer;
use crate::format::BRANCH;
use crate::format::LEAF;

const PAGE: usize = 1024;
/// Bucket `b`: five leaves of eight rows, 3 to 7, and their branch 8. Bucket `e`: an empty leaf, 9. The bucket of buckets: 10.
const LEAF_PAGE: usize = 3 * PAGE;
const BRANCH_PAGE: usize = 8 * PAGE;
const ROOT_PAGE: usize = 10 * PAGE;

fn file() -> Vec<u8> {
    let rows: Vec<_> = (0..40).map(|at| (format!("k{at:03}"), [at; 100])).collect();
    let mut measure = Measure::new(PageSize::new(PAGE as u32).unwrap());
    measure.bucket(b"b").unwrap();
    rows.iter().for_each(|(key, value)| measure.row(key.len(), value.len()).unwrap());
    measure.bucket(b"e").unwrap();
    let mut writer = Writer::new(Vec::new(), measure.finish().unwrap()).unwrap();
    writer.bucket(b"b").unwrap();
    rows.iter().for_each(|(key, value)| writer.row(key.as_bytes(), value).unwrap());
    writer.bucket(b"e").unwrap();
    let file = writer.finish().unwrap();
    assert_eq!(file.len(), 11 * PAGE);
    file
}

/// The valid file with `bytes` at `offset`.
fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file();
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
    file
}

fn rewritten_meta(file: &mut [u8], page: usize, change: impl FnOnce(&mut Meta)) {
    let mut bytes = [0; META_LEN];
    let at = page * PAGE + HEADER_LEN;
    bytes.copy_from_slice(&file[at..at + META_LEN]);
    let mut meta = Meta::decode(&bytes).unwrap();
    change(&mut meta);
    file[at..at + META_LEN].copy_from_slice(&meta.encode());
}

#[track_caller]
fn assert_fault(file: &[u8], page: u64, offset: usize, fault: Fault) {
    match read_all(file) {
        Err(ReadError::Page { page: found_page, offset: found_offset, fault: found }) => {
            assert_eq!((found_page, found_offset, found), (page, offset as u64, fault));
        }
        other => panic!("{fault:?} was expected on page {page}: {other:?}"),
    }
}

#[test]
fn the_undamaged_file_is_read() {
    assert_eq!(read_all(&file()).unwrap(), Summary { buckets: 2, rows: 40, bytes: 40 * 104 });
}

#[test]
fn headers_are_checked() {
    assert_fault(&patched(LEAF_PAGE, &[4]), 3, LEAF_PAGE, Fault::Id(4));
    for flags in [0, META, LEAF | BRANCH, 0x10, 0x8000] {
        assert_fault(&patched(LEAF_PAGE + 8, &flags.to_le_bytes()), 3, LEAF_PAGE, Fault::Flags(flags));
    }
    // 16 + 16 * 63 fills the page, 64 elements do not fit.
    assert_fault(&patched(LEAF_PAGE + 10, &[64]), 3, LEAF_PAGE, Fault::Count { count: 64, len: 1024 });
    assert_fault(&patched(BRANCH_PAGE + 10, &[0]), 8, BRANCH_PAGE, Fault::NoChildren);
    for overflow in [8, u32::MAX] {
        let fault = Fault::Overflow { overflow, high_water: 11 };
        assert_fault(&patched(LEAF_PAGE + 12, &overflow.to_le_bytes()), 3, LEAF_PAGE, fault);
    }
}

#[test]
fn elements_are_checked() {
    let first = LEAF_PAGE + 16;
    let fault = Fault::Bounds { index: 0 };
    // The data of eight elements starts 128 bytes behind the first.
    for pos in [0, 127, 1024, u32::MAX] {
        assert_fault(&patched(first + 4, &pos.to_le_bytes()), 3, first, fault);
    }
    assert_fault(&patched(first + 8, &[0; 4]), 3, first, Fault::KeyLen { index: 0, len: 0 });
    assert_fault(&patched(first + 8, &32_769_u32.to_le_bytes()), 3, first, Fault::KeyLen { index: 0, len: 32_769 });
    assert_fault(&patched(first + 12, &2000_u32.to_le_bytes()), 3, first, fault);
    let fault = Fault::ValueLen { index: 0, len: u32::MAX, max: 256 << 20 };
    assert_fault(&patched(first + 12, &[0xff; 4]), 3, first, fault);
    // A first value one byte longer reaches into the second key.
    assert_fault(&patched(first + 12, &[101]), 3, first + 16, Fault::Bounds { index: 1 });
    assert_fault(&patched(first, &[1]), 3, first, Fault::NestedBucket { index: 0 });
    assert_fault(&patched(first, &[2]), 3, first, Fault::ElementFlags { index: 0, flags: 2 });
    assert_fault(&patched(BRANCH_PAGE + 16, &[0xff; 4]), 8, BRANCH_PAGE + 16, Fault::Bounds { index: 0 });
}

#[test]
fn keys_are_in_order_and_between_those_of_the_parent() {
    let keys = LEAF_PAGE + 16 + 8 * 16;
    assert_fault(&patched(keys + 104, b"k000"), 3, LEAF_PAGE + 32, Fault::KeyOrder { index: 1 });
    assert_fault(&patched(keys, b"j999"), 3, LEAF_PAGE + 16, Fault::KeyRange { index: 0 });
    let last = keys + 7 * 104;
    assert_fault(&patched(last, b"k008"), 3, LEAF_PAGE + 16 + 7 * 16, Fault::KeyRange { index: 7 });
    let separators = BRANCH_PAGE + 16 + 5 * 16;
    assert_fault(&patched(separators + 4, b"k000"), 8, BRANCH_PAGE + 32, Fault::KeyOrder { index: 1 });
    // A separator that is too high makes the child's first key too low.
    assert_fault(&patched(separators + 16, b"k033"), 7, 7 * PAGE + 16, Fault::KeyRange { index: 0 });
}

#[test]
fn children_are_pages_and_no_page_is_reached_twice() {
    let child = |index: usize| BRANCH_PAGE + 16 + 16 * index;
    for page in [0_u64, 1, 11, u64::MAX] {
        let fault = Fault::Child { index: 2, page, high_water: 11 };
        assert_fault(&patched(child(2) + 8, &page.to_le_bytes()), 8, child(2), fault);
    }
    assert_fault(&patched(child(4) + 8, &[3]), 3, LEAF_PAGE, Fault::ReachedTwice);
    assert_fault(&patched(child(4) + 8, &[8]), 8, BRANCH_PAGE, Fault::ReachedTwice);
    // Overflow pages count: the leaf before the branch reaches over it.
    assert_fault(&patched(7 * PAGE + 12, &[1]), 7, 7 * PAGE, Fault::ReachedTwice);
}

#[test]
fn buckets_are_checked() {
    let element = ROOT_PAGE + 16;
    assert_fault(&patched(element, &[0]), 10, element, Fault::NotABucket { index: 0 });
    assert_fault(&patched(element, &[3]), 10, element, Fault::ElementFlags { index: 0, flags: 3 });
    assert_fault(&patched(element + 12, &[15]), 10, element, Fault::BucketLen { index: 0, len: 15 });
    let root = ROOT_PAGE + 16 + 2 * 16 + 1;
    assert_fault(&patched(root, &[11]), 10, element, Fault::Child { index: 0, page: 11, high_water: 11 });
    assert_fault(&patched(root, &[1]), 10, element, Fault::Child { index: 0, page: 1, high_water: 11 });
    // An inline bucket has a page behind its header.
    assert_fault(&patched(root, &[0]), 10, element, Fault::BucketLen { index: 0, len: 16 });
    // A bucket whose root is the bucket of buckets.
    assert_fault(&patched(root, &[10]), 10, element, Fault::NestedBucket { index: 0 });
    assert_fault(&patched(root + 17, &[8]), 10, element + 16, Fault::ReachedTwice);
}

#[test]
fn either_meta_will_do() {
    let whole = read_all(&file()).unwrap();
    for page in [0, 1] {
        for at in 0..HEADER_LEN + META_LEN {
            let mut file = file();
            file[page * PAGE + at] ^= 0x10;
            assert_eq!(read_all(&file).unwrap(), whole, "byte {at} of meta {page}");
        }
    }
    let mut file = patched(16, &[0; 4]);
    file[PAGE + 16 + 56] ^= 1;
    match read_all(&file) {
        Err(ReadError::NoMeta { first: MetaFault::Magic(0), second: MetaFault::Checksum { .. } }) => {}
        other => panic!("{other:?}"),
    }
    for len in [0, 1, 79, 80, 1023] {
        let error = read_all(&[0; PAGE][..len]).unwrap_err();
        assert!(matches!(error, ReadError::NoMeta { second: MetaFault::Missing, .. }), "{error}");
    }
}

#[test]
fn the_newer_meta_wins() {
    for (newer, txid) in [(0, 2), (1, 7)] {
        let mut file = file();
        rewritten_meta(&mut file, 1, |meta| meta.txid = if newer == 1 { 7 } else { 1 });
        // The older one points at the empty leaf.
        rewritten_meta(&mut file, 1 - newer, |meta| meta.root = 9);
        let database = Database::open(&file.as_slice()).map(|database| (database.txid(), database.buckets().len()));
        assert_eq!(database.unwrap(), (txid, 2));
    }
}

#[test]
fn what_a_meta_says_is_checked() {
    let with = |change: fn(&mut Meta)| {
        let mut file = file();
        rewritten_meta(&mut file, 0, change);
        read_all(&file)
    };
    assert!(matches!(with(|meta| meta.root = 11), Err(ReadError::Meta { what: "root", found: 11, .. })));
    assert!(matches!(with(|meta| meta.root = 1), Err(ReadError::Meta { what: "root", found: 1, .. })));
    assert!(matches!(with(|meta| meta.freelist = 11), Err(ReadError::Meta { what: "freelist", .. })));
    assert!(matches!(with(|meta| meta.freelist = NO_FREELIST), Ok(Summary { rows: 40, .. })));
    assert!(matches!(with(|meta| meta.high_water = 12), Err(ReadError::Truncated { page: 0, expected: 12_288, .. })));
    assert!(matches!(with(|meta| meta.high_water = u64::MAX), Err(ReadError::Truncated { .. })));
    assert!(matches!(with(|meta| meta.high_water = 10), Err(ReadError::Meta { what: "root", .. })));
    assert!(matches!(with(|meta| meta.high_water = 0), Err(ReadError::Meta { what: "root", .. })));
    assert!(matches!(read_all(&file()[..11 * PAGE - 1]), Err(ReadError::Truncated { len: 11_263, .. })));
}

/// A source that claims a length and has no bytes.
struct Claim(u64);

impl ReadAt for Claim {
    fn file_len(&self) -> io::Result<u64> {
        Ok(self.0)
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[test]
fn sources_that_fail_or_claim_too_much_are_errors() {
    assert!(matches!(Database::open(&Claim(u64::MAX)), Err(ReadError::TooLarge { .. })));
    assert!(matches!(Database::open(&Claim(1 << 30)), Err(ReadError::Io { offset: 0, .. })));
}

/// One page with the given elements, each a key and the bytes behind the key.
fn page(id: u64, flags: u16, elements: &[(&[u8], u64)]) -> Vec<u8> {
    let mut page =
        PageHeader { id, flags, count: u16::try_from(elements.len()).unwrap(), overflow: 0 }.encode().to_vec();
    let mut data_at = HEADER_LEN + 16 * elements.len();
    for (key, child) in elements {
        let pos = u32::try_from(data_at - page.len()).unwrap();
        let key_len = u32::try_from(key.len()).unwrap();
        let element = if flags == BRANCH {
            crate::format::BranchElement { pos, key_len, page: *child }.encode()
        } else {
            crate::format::LeafElement { flags: BUCKET_ELEMENT, pos, key_len, value_len: 16 }.encode()
        };
        page.extend_from_slice(&element);
        data_at += key.len() + if flags == BRANCH { 0 } else { 16 };
    }
    for (key, child) in elements {
        page.extend_from_slice(key);
        if flags == LEAF {
            page.extend_from_slice(&crate::format::encode_bucket(*child));
        }
    }
    page.resize(PAGE, 0);
    page
}

/// A file of these pages from page 2 on, the bucket of buckets being page 2.
fn file_of(pages: &[Vec<u8>]) -> Vec<u8> {
    let high_water = 2 + pages.len() as u64;
    let page_size = PageSize::new(PAGE as u32).unwrap();
    let mut file = Vec::new();
    for (id, txid) in [(0, 2), (1, 1)] {
        file.extend_from_slice(&PageHeader { id, flags: META, count: 0, overflow: 0 }.encode());
        file.extend_from_slice(&Meta { page_size, root: 2, freelist: NO_FREELIST, high_water, txid }.encode());
        file.resize((id as usize + 1) * PAGE, 0);
    }
    file.extend(pages.concat());
    file
}

#[test]
fn a_chain_of_branches_is_not_followed_for_ever() {
    let mut pages = vec![page(2, LEAF, &[(b"b", 3)])];
    pages.extend((3..103).map(|id| page(id, BRANCH, &[(b"k", id + 1)])));
    pages.push(page(103, LEAF, &[]));
    assert_fault(&file_of(&pages), 51, 51 * PAGE, Fault::Depth { max: 48 });
}

#[test]
fn more_buckets_than_allowed_are_refused() {
    let names: Vec<_> = (0..=BUCKETS_MAX).map(|at| format!("{at:04}")).collect();
    // Each has a root of its own, which nobody looks at.
    let leaf = |id: u64, names: &[String]| {
        let roots: Vec<_> = names.iter().map(|name| (name.as_bytes(), 3 + name.parse::<u64>().unwrap())).collect();
        page(id, LEAF, &roots)
    };
    let chunks: Vec<_> = names.chunks(20).collect();
    let children: Vec<_> = chunks.iter().zip(4..).map(|(names, id)| (names[0].as_bytes(), id)).collect();
    let mut pages = vec![page(2, BRANCH, &children), page(3, LEAF, &[])];
    pages.extend(chunks.iter().zip(4..).map(|(names, id)| leaf(id, names)));
    pages.resize(300, vec![0; PAGE]);
    let error = read_all(&file_of(&pages)).unwrap_err();
    assert!(matches!(error, ReadError::TooManyBuckets), "{error}");
}

#[test]
fn inline_buckets_are_checked() {
    let inline = |header: PageHeader, rows: &[u8]| {
        let value = [&crate::format::encode_bucket(0)[..], &header.encode(), rows].concat();
        let mut bytes = page(2, LEAF, &[(b"b", 0)]);
        bytes[16 + 12..16 + 16].copy_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        bytes[33..33 + value.len()].copy_from_slice(&value);
        file_of(&[bytes])
    };
    let header = PageHeader { id: 0, flags: LEAF, count: 1, overflow: 0 };
    let element = crate::format::LeafElement { flags: 0, pos: 16, key_len: 1, value_len: 2 };
    let rows = [&element.encode()[..], b"kvv"].concat();
    assert_eq!(read_all(&inline(header, &rows)).unwrap(), Summary { buckets: 1, rows: 1, bytes: 3 });
    // The inline page starts behind the bucket's header, which starts behind the key.
    let at = 2 * PAGE + 33 + 16;
    assert_fault(&inline(PageHeader { flags: BRANCH, ..header }, &rows), 2, at, Fault::Flags(BRANCH));
    let fault = Fault::Overflow { overflow: 1, high_water: 0 };
    assert_fault(&inline(PageHeader { overflow: 1, ..header }, &rows), 2, at, fault);
    assert_fault(&inline(PageHeader { count: 2, ..header }, &rows), 2, at, Fault::Count { count: 2, len: 35 });
    assert_fault(&inline(header, &rows[..18]), 2, at + 16, Fault::Bounds { index: 0 });
    // A byte less than a page header, and a byte more than a page.
    for len in [15, PAGE + 1] {
        let mut file = inline(header, &rows);
        file.resize(5 * PAGE, 0);
        file[2 * PAGE + 12..2 * PAGE + 16].copy_from_slice(&1_u32.to_le_bytes());
        file[2 * PAGE + 28..2 * PAGE + 32].copy_from_slice(&u32::try_from(16 + len).unwrap().to_le_bytes());
        [0, 1].into_iter().for_each(|page| rewritten_meta(&mut file, page, |meta| meta.high_water = 5));
        assert_fault(&file, 2, 2 * PAGE + 16, Fault::BucketLen { index: 0, len: 16 + len });
    }
}
