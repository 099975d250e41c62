//! Puts the numbers of kernel functions into the object. The compiler could not know them, so the
//! programs call helpers that no kernel has (`memwatch_ebpf::KFUNCS`); here each such call becomes what
//! the kernel takes for a call of its own function (include/uapi/linux/bpf.h, BPF_PSEUDO_KFUNC_CALL).
//! Pure.

use memwatch_ebpf::KFUNCS;

/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// In the upper half of the registers' byte.
const BPF_PSEUDO_KFUNC_CALL: u8 = 2;

/// The object with `numbers`, in the order of [`KFUNCS`], in place of their stand-ins.
pub(super) fn with_numbers(object: &[u8], numbers: &[u32; KFUNCS.len()]) -> Vec<u8> {
    let mut object = object.to_vec();
    for ((_, stand_in), number) in KFUNCS.iter().zip(numbers) {
        let mut call = [CALL, 0, 0, 0, 0, 0, 0, 0];
        call[4..].copy_from_slice(&stand_in.to_le_bytes());
        let instructions = object.chunks_exact_mut(call.len());
        for instruction in instructions.filter(|instruction| **instruction == call) {
            instruction[1] = BPF_PSEUDO_KFUNC_CALL << 4;
            instruction[4..].copy_from_slice(&number.to_le_bytes());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stand_in_is_called_and_none_is_left() {
        let object = memwatch_ebpf::OBJECT;
        let numbers = [11, 12, 13, 14, 15, 16];
        let patched = with_numbers(object, &numbers);
        assert_eq!(patched.len(), object.len());
        let count =
            |object: &[u8], call: &[u8]| object.chunks_exact(8).filter(|i| *i == call).count();
        for ((name, stand_in), number) in KFUNCS.iter().zip(numbers) {
            let helper = [&[CALL, 0, 0, 0][..], &stand_in.to_le_bytes()].concat();
            let kfunc = [&[CALL, 0x20, 0, 0][..], &number.to_le_bytes()].concat();
            let calls = count(object, &helper);
            assert!(calls > 0, "{name} is never called");
            assert_eq!(count(&patched, &helper), 0, "{name}");
            assert_eq!(count(&patched, &kfunc), calls, "{name}");
        }
    }
}
