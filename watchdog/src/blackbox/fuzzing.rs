//! What must hold of what is found in a black box. See [`crate::fuzzing`].

use super::found;
use super::slots::{SLOT_BYTES, Slot, TEXT_BYTES, place, read};
use uuid::Uuid;

const BOOT: &str = "9d0c9b6e-0000-4000-8000-000000000001";

/// The bytes of a file, as they are, with nothing behind them.
pub(crate) fn bytes(file: &[u8]) {
    let mut file = file.to_vec();
    file.resize(
        file.len().next_multiple_of(SLOT_BYTES).min(4 * SLOT_BYTES),
        0,
    );
    believed(&file);
}

/// Texts of slots with a zero byte between them, in a file whose slots are whole.
pub(crate) fn pages(texts: &[u8]) {
    let mut file = vec![0; 4 * SLOT_BYTES];
    let texts = texts.split(|&byte| byte == 0).take(4);
    for (text, number) in texts.zip(0..) {
        let slot = Slot {
            number,
            session: Uuid::from_u128(7),
            text: &text[..text.len().min(TEXT_BYTES)],
        };
        let at = place(number);
        assert!(slot.encode(&mut file[at..at + SLOT_BYTES]));
        assert_eq!(read(&file).0.last(), Some(&slot));
    }
    believed(&file);
    // Of a slot that is torn nothing is believed.
    let (whole, torn) = read(&file);
    let count = whole.len();
    if let Some(last) = whole.last() {
        let at = place(last.number) + SLOT_BYTES - TEXT_BYTES;
        let end = at + last.text.len();
        if let Some(byte) = (at..end).next_back() {
            let mut file = file.clone();
            file[byte] ^= 1;
            let (left, more) = read(&file);
            assert_eq!((left.len(), more), (count - 1, torn + 1));
        }
    }
}

fn believed(file: &[u8]) {
    let (whole, torn) = read(file);
    assert!((whole.len() + torn) * SLOT_BYTES <= file.len());
    assert!(whole.is_sorted_by_key(|slot| slot.number));
    if let Some(found) = found(file, BOOT) {
        let boot = found.record.host.boot_id.as_ref();
        assert!(boot.is_some_and(|id| id.as_str() != BOOT), "of this life");
        crate::fuzzing::of_record(&found.record);
    }
}
