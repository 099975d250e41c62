//! A scan over the kernel's BTF for the few names that memwatch needs.
//!
//! Not a BTF library: those build an index of 150,000 types, which is more memory than the whole agent
//! may have. This walks the bytes once (Documentation/bpf/btf.rst) and keeps an offset a type while it
//! looks. Pure; reading the file is `facts`'s.

const MAGIC: u16 = 0xeb9f;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const TYPEDEF: u32 = 8;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
/// The longest name that the kernel takes, with its NUL (`KSYM_NAME_LEN`): nobody looks further for an end.
const NAME_BYTES: usize = 512;
/// The most members that are looked at for one: `task_struct` has 300, with what is anonymous in it.
const MEMBERS: u32 = 1 << 16;

/// The types of one kernel.
#[derive(Debug)]
pub(super) struct Btf<'b> {
    strings: &'b [u8],
    types: &'b [u8],
    /// Where type `id` starts, at `id - 1`.
    starts: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Type<'b> {
    name: &'b [u8],
    kind: u32,
    /// Whether member offsets carry a bit-field size.
    kind_flag: bool,
    count: u32,
    /// A size or a type id, by kind.
    size_or_type: u32,
    rest: &'b [u8],
}

impl<'b> Btf<'b> {
    /// `None` if the bytes are not BTF of this machine's byte order, or are cut short.
    pub(super) fn parse(bytes: &'b [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let body = bytes.get(word(bytes, 4)? as usize..)?;
        let section = |offset, length| {
            let start = word(bytes, offset)? as usize;
            body.get(start..start.checked_add(word(bytes, length)? as usize)?)
        };
        let mut btf = Self {
            types: section(8, 12)?,
            strings: section(16, 20)?,
            starts: Vec::new(),
        };
        // As the kernel has it, so that no name can be cut.
        if btf.strings.first() != Some(&0) || btf.strings.last() != Some(&0) {
            return None;
        }
        let mut at = 0;
        while at < btf.types.len() {
            let found = btf.at(at)?;
            btf.starts.push(at as u32);
            at += 12 + trailing_bytes(found.kind, found.count)?;
        }
        (at == btf.types.len()).then_some(btf)
    }

    /// Offset of a member, in bytes; looks into anonymous structs, as layout randomisation makes them.
    pub(super) fn member_offset(&self, structure: &str, member: &str) -> Option<u32> {
        let found = self.find(STRUCT, structure)?;
        self.offset_in(found, member.as_bytes(), 8, &mut { MEMBERS })
    }

    /// `left` is how many members may still be looked at, since structs could be in each other many times over.
    fn offset_in(
        &self,
        structure: Type<'b>,
        member: &[u8],
        depth: u32,
        left: &mut u32,
    ) -> Option<u32> {
        (0..structure.count as usize).find_map(|n| {
            *left = left.checked_sub(1)?;
            let name = self.name(word(structure.rest, 12 * n)?)?;
            let raw = word(structure.rest, 12 * n + 8)?;
            let bits = if structure.kind_flag {
                raw & 0xff_ffff
            } else {
                raw
            };
            if name == member {
                return Some(bits / 8);
            }
            let inner = name
                .is_empty()
                .then(|| self.by_id(word(structure.rest, 12 * n + 4)?))
                .flatten()?;
            let deeper = depth.checked_sub(1)?;
            (inner.kind == STRUCT)
                .then(|| self.offset_in(inner, member, deeper, left))
                .flatten()
                .and_then(|offset| offset.checked_add(bits / 8))
        })
    }

    /// The number of the function of that name, by which a program calls it.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        let is_it = |found: Type<'_>| found.kind == FUNC && found.name == name.as_bytes();
        let mut types = self.starts.iter().map(|&start| self.at(start as usize));
        let index = types.position(|found| found.is_some_and(is_it))?;
        u32::try_from(index + 1).ok()
    }

    /// Whether the argument of a raw tracepoint is a pointer. `argument` counts from 0, without the
    /// private data that comes first in the prototype.
    pub(super) fn tracepoint_argument_is_pointer(
        &self,
        tracepoint: &str,
        argument: usize,
    ) -> Option<bool> {
        let typedef = self.find(TYPEDEF, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.by_id(typedef.size_or_type)?;
        let prototype = self.by_id(pointer.size_or_type)?;
        if pointer.kind != PTR
            || prototype.kind != FUNC_PROTO
            || argument + 1 >= prototype.count as usize
        {
            return None;
        }
        let id = word(prototype.rest, 8 * (argument + 1) + 4)?;
        Some(self.by_id(id)?.kind == PTR)
    }

    fn find(&self, kind: u32, name: &str) -> Option<Type<'b>> {
        self.starts
            .iter()
            .filter_map(|&start| self.at(start as usize))
            .find(|found| found.kind == kind && found.name == name.as_bytes())
    }

    fn by_id(&self, id: u32) -> Option<Type<'b>> {
        self.at(*self.starts.get(id.checked_sub(1)? as usize)? as usize)
    }

    fn at(&self, start: usize) -> Option<Type<'b>> {
        let info = word(self.types, start + 4)?;
        Some(Type {
            name: self.name(word(self.types, start)?)?,
            kind: (info >> 24) & 0x1f,
            kind_flag: info >> 31 == 1,
            count: info & 0xffff,
            size_or_type: word(self.types, start + 8)?,
            rest: self.types.get(start + 12..)?,
        })
    }

    fn name(&self, offset: u32) -> Option<&'b [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        let most = &rest[..rest.len().min(NAME_BYTES)];
        most.split(|&b| b == 0).next()
    }
}

/// Bytes that follow the common part, by kind (include/uapi/linux/btf.h). `None` for a kind that is
/// newer than this list: what follows it cannot be found.
fn trailing_bytes(kind: u32, count: u32) -> Option<usize> {
    let count = count as usize;
    Some(match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * count,
        6 | 13 => 8 * count,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kernel() -> Vec<u8> {
        std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF")
    }

    #[test]
    fn the_running_kernel_has_what_every_kernel_has() {
        let bytes = kernel();
        let btf = Btf::parse(&bytes).expect("BTF");
        let pid = btf.member_offset("task_struct", "pid").expect("pid");
        assert_eq!(btf.member_offset("task_struct", "tgid"), Some(pid + 4));
        assert!(btf.member_offset("task_struct", "comm").expect("comm") > pid);
        assert_eq!(btf.member_offset("task_struct", "no such member"), None);
        let schedule = btf.function("schedule").expect("schedule");
        assert_eq!(
            btf.by_id(schedule).map(|found| found.name),
            Some(&b"schedule"[..])
        );
        assert_eq!(btf.function("no such function"), None);
        // (struct reclaim_state...): `mm_vmscan_direct_reclaim_begin(int order, gfp_t gfp_flags)`.
        let order = btf.tracepoint_argument_is_pointer("mm_vmscan_direct_reclaim_begin", 0);
        assert_eq!(order, Some(false));
        let task = btf.tracepoint_argument_is_pointer("sched_process_hang", 0);
        assert_eq!(task, Some(true));
        assert_eq!(
            btf.tracepoint_argument_is_pointer("sched_process_hang", 9),
            None
        );
    }

    #[test]
    fn what_is_cut_short_is_no_btf() {
        let bytes = kernel();
        assert!(Btf::parse(&bytes[..bytes.len() / 2]).is_none());
        assert!(Btf::parse(&[]).is_none());
        assert!(Btf::parse(b"ELF").is_none());
    }

    /// BTF of these types and strings.
    fn btf(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let length = types.len() as u32 * 4;
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, length, length, strings.len() as u32]
            .iter()
            .chain(types)
        {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    const NAMES: &[u8] = b"\0s\0m\0";

    #[test]
    fn a_type_or_a_name_that_is_cut_is_no_btf() {
        let one = [1, STRUCT << 24 | 1, 4, 3, 0, 40];
        let whole = btf(&one, NAMES);
        let offset = |bytes: &[u8]| Btf::parse(bytes)?.member_offset("s", "m");
        assert_eq!(offset(&whole), Some(5));
        assert_eq!(offset(&btf(&one[..5], NAMES)), None);
        assert!(Btf::parse(&btf(&one[..5], NAMES)).is_none());
        assert!(Btf::parse(&btf(&one, &NAMES[..4])).is_none());
        assert!(Btf::parse(&btf(&one, &NAMES[1..])).is_none());
    }

    #[test]
    fn structs_that_hold_themselves_many_times_over_are_left_in_time() {
        const MANY: u32 = 60_000;
        let member = [0, 1, u32::MAX];
        let mut types = vec![1, STRUCT << 24 | MANY, 4];
        types.extend(member.repeat(MANY as usize));
        let bytes = btf(&types, NAMES);
        let parsed = Btf::parse(&bytes).expect("BTF");
        assert_eq!(parsed.member_offset("s", "m"), None);
        assert!(Btf::parse(&btf(&[1; 30], &[0; 9])).is_none());
    }

    #[test]
    fn an_offset_that_does_not_fit_is_none() {
        let mut types = vec![];
        for inner in 2..=9 {
            types.extend([
                u32::from(inner == 2),
                STRUCT << 24 | 1,
                4,
                0,
                inner,
                u32::MAX,
            ]);
        }
        types.extend([0, STRUCT << 24 | 1, 4, 3, 1, u32::MAX]);
        let bytes = btf(&types, NAMES);
        let parsed = Btf::parse(&bytes).expect("BTF");
        assert_eq!(parsed.member_offset("s", "m"), None);
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut framed = MAGIC.to_ne_bytes().to_vec();
            framed.extend([1, 0]);
            for n in [24u32, 0, 200, 200, 100] {
                framed.extend(n.to_ne_bytes());
            }
            framed.extend(bytes);
            if let Some(btf) = Btf::parse(&framed) {
                let _ = btf.member_offset("a", "b");
                let _ = btf.tracepoint_argument_is_pointer("a", 0);
            }
        }
    }
}
