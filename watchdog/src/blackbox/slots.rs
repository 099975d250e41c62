//! Slots of fixed size, each whole or not believed. Pure.
//!
//! A slot begins with a header: what it is, a checksum over all that follows, the length of the text, the slot's
//! number since the file was made, and the session (one memwatch under one pressure). A slot that was torn by the
//! power cut has a wrong checksum; one that a disk put in the wrong place has a number that does not belong there.

use uuid::Uuid;

/// A whole number of sectors and pages, so that it can be written past the page cache.
pub const SLOT_BYTES: usize = 16 << 10;
/// At two a second the last quarter of a minute, each with the minutes before it in less detail.
pub(super) const SLOTS: usize = 32;
/// The file's size, which never changes: no write needs room on the disk.
pub const FILE_BYTES: usize = SLOT_BYTES * SLOTS;

/// With the version of the format.
const MAGIC: [u8; 8] = *b"MWBBOX\0\x01";
const CHECKSUM: usize = MAGIC.len();
const LENGTH: usize = CHECKSUM + 4;
const NUMBER: usize = LENGTH + 4;
const SESSION: usize = NUMBER + 8;
const TEXT: usize = SESSION + 16;
/// The most text that a slot holds.
pub const TEXT_BYTES: usize = SLOT_BYTES - TEXT;

/// A slot that was read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot<'a> {
    pub(super) number: u64,
    pub(super) session: Uuid,
    pub(super) text: &'a [u8],
}

impl Slot<'_> {
    /// Puts it into `bytes`, which are a slot's. Of a text that is too long nothing is put.
    pub(super) fn encode(&self, bytes: &mut [u8]) -> bool {
        let end = TEXT + self.text.len();
        if bytes.len() != SLOT_BYTES || end > SLOT_BYTES {
            return false;
        }
        bytes.fill(0);
        bytes[..CHECKSUM].copy_from_slice(&MAGIC);
        bytes[LENGTH..NUMBER].copy_from_slice(&(self.text.len() as u32).to_le_bytes());
        bytes[NUMBER..SESSION].copy_from_slice(&self.number.to_le_bytes());
        bytes[SESSION..TEXT].copy_from_slice(self.session.as_bytes());
        bytes[TEXT..end].copy_from_slice(self.text);
        let checksum = crc32fast::hash(&bytes[LENGTH..end]);
        bytes[CHECKSUM..LENGTH].copy_from_slice(&checksum.to_le_bytes());
        true
    }
}

/// Where the slot of that number is.
pub(super) fn place(number: u64) -> usize {
    (number % SLOTS as u64) as usize * SLOT_BYTES
}

/// The slots of a file that are whole, by number, and how many are neither that nor unused.
pub(super) fn read(file: &[u8]) -> (Vec<Slot<'_>>, usize) {
    let mut torn = 0;
    let mut whole: Vec<Slot<'_>> = file
        .chunks_exact(SLOT_BYTES)
        .enumerate()
        .filter_map(|(at, bytes)| {
            let slot = decode(bytes).filter(|slot| place(slot.number) == at * SLOT_BYTES);
            torn += usize::from(slot.is_none() && bytes.iter().any(|&byte| byte != 0));
            slot
        })
        .collect();
    whole.sort_by_key(|slot| slot.number);
    (whole, torn)
}

fn decode(bytes: &[u8]) -> Option<Slot<'_>> {
    let field = |from, to| bytes.get(from..to);
    let word = |from| Some(u32::from_le_bytes(field(from, from + 4)?.try_into().ok()?));
    if field(0, CHECKSUM)? != MAGIC {
        return None;
    }
    let end = TEXT.checked_add(word(LENGTH)? as usize)?;
    let text = field(TEXT, end)?;
    if crc32fast::hash(field(LENGTH, end)?) != word(CHECKSUM)? {
        return None;
    }
    Some(Slot {
        number: u64::from_le_bytes(field(NUMBER, SESSION)?.try_into().ok()?),
        session: Uuid::from_slice(field(SESSION, TEXT)?).ok()?,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(number: u64, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; SLOT_BYTES];
        let session = Uuid::from_u128(7);
        let slot = Slot {
            number,
            session,
            text,
        };
        assert!(slot.encode(&mut bytes));
        bytes
    }

    #[test]
    fn what_was_written_is_read_in_order_and_what_was_not_is_no_loss() {
        let mut file = vec![0; FILE_BYTES];
        for number in [SLOTS as u64 + 1, 3, 2] {
            let at = place(number);
            file[at..at + SLOT_BYTES].copy_from_slice(&slot(number, b"text"));
        }
        let (whole, torn) = read(&file);
        let numbers: Vec<u64> = whole.iter().map(|slot| slot.number).collect();
        assert_eq!((numbers, torn), (vec![2, 3, SLOTS as u64 + 1], 0));
        assert!(whole.iter().all(|slot| slot.text == b"text"));
    }

    #[test]
    fn a_slot_in_the_place_of_another_is_not_believed() {
        let mut file = vec![0; FILE_BYTES];
        file[..SLOT_BYTES].copy_from_slice(&slot(1, b"text"));
        assert_eq!(read(&file), (vec![], 1));
    }

    #[test]
    fn a_text_that_is_too_long_is_not_put() {
        let text = vec![b'x'; TEXT_BYTES + 1];
        let session = Uuid::nil();
        let mut bytes = vec![0; SLOT_BYTES];
        let slot = |text| Slot {
            number: 0,
            session,
            text,
        };
        assert!(!slot(&text[..]).encode(&mut bytes));
        assert!(slot(&text[1..]).encode(&mut bytes));
    }

    #[test]
    fn each_single_byte_that_is_wrong_is_noticed() {
        let right = slot(0, b"{\"at_us\":12345}");
        let end = TEXT + 15;
        for at in 0..end {
            for bit in 0..8 {
                let mut wrong = right.clone();
                wrong[at] ^= 1 << bit;
                assert_eq!(decode(&wrong), None, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn no_beginning_of_a_slot_over_an_older_one_is_believed_as_the_new_one() {
        let old = slot(0, &[b'o'; 3000]);
        let new = slot(SLOTS as u64, &[b'n'; 2000]);
        let end = TEXT + 2000;
        for written in 0..end {
            let mut torn = old.clone();
            torn[..written].copy_from_slice(&new[..written]);
            let found = decode(&torn);
            // Only the old one as it was.
            let is_old = found.is_some_and(|slot| slot.number == 0 && slot.text == [b'o'; 3000]);
            assert!(found.is_none() || is_old, "after {written} bytes");
        }
    }

    proptest! {
        #[test]
        fn sectors_of_two_slots_make_none(
            old in proptest::collection::vec(any::<u8>(), 600..4000),
            new in proptest::collection::vec(any::<u8>(), 600..4000),
            from_new in proptest::collection::vec(any::<bool>(), SLOT_BYTES / 512),
        ) {
            let (old, new) = (slot(0, &old), slot(SLOTS as u64, &new));
            let mut mixed = old.clone();
            for (sector, _) in from_new.iter().enumerate().filter(|(_, is)| **is) {
                let bytes = sector * 512..(sector + 1) * 512;
                mixed[bytes.clone()].copy_from_slice(&new[bytes]);
            }
            if let Some(found) = decode(&mixed) {
                let same = |other: &[u8]| decode(other) == Some(found);
                prop_assert!(same(&old) || same(&new));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read(&bytes), (vec![], 0));
            let with_magic = bytes.len() >= MAGIC.len();
            if with_magic {
                bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
            }
            prop_assert_eq!(decode(&bytes), None);
        }

        #[test]
        fn a_run_of_wrong_bytes_is_noticed(at in 0usize..(TEXT + 100), wrong in proptest::collection::vec(1u8.., 1..4)) {
            let right = slot(5, &[b'a'; 100]);
            let mut bytes = right.clone();
            for (byte, wrong) in bytes[at..].iter_mut().zip(wrong).take(TEXT + 100 - at) {
                *byte ^= wrong;
            }
            prop_assert_eq!(decode(&bytes), None);
        }
    }
}
