//! The few calls of bpf(2) that aya does not offer: maps of maps, and a look-up without an allocation.
//! The layouts are those of `union bpf_attr` (include/uapi/linux/bpf.h).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_PIN: libc::c_int = 6;

const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

#[repr(C)]
#[derive(Default)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new<K, V>(map: BorrowedFd<'_>, key: &K, value: *mut V) -> Self {
        Self {
            map_fd: map.as_raw_fd() as u32,
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value: value as u64,
            flags: 0,
        }
    }
}

/// # Safety
/// `attributes` is what `command` takes, and what it points to is valid for it.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the caller's promise is passed on.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn create(attributes: &Create) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { bpf(BPF_MAP_CREATE, attributes) }?;
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A ring buffer of `bytes`: a power of two of pages.
///
/// # Errors
/// What the kernel says: EPERM without the right to.
pub(super) fn create_ring(bytes: u32) -> io::Result<OwnedFd> {
    create(&Create {
        map_type: BPF_MAP_TYPE_RINGBUF,
        max_entries: bytes,
        name: *b"EVENTS\0\0\0\0\0\0\0\0\0\0",
        ..Create::default()
    })
}

/// An array of maps like `like`, all places empty.
///
/// # Errors
/// What the kernel says.
pub(super) fn create_array_of_maps(like: BorrowedFd<'_>, places: u32) -> io::Result<OwnedFd> {
    create(&Create {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: places,
        inner_map_fd: like.as_raw_fd() as u32,
        name: *b"RINGS\0\0\0\0\0\0\0\0\0\0\0",
        ..Create::default()
    })
}

/// Gives a map or program a name in a BPF file system.
///
/// # Errors
/// What the kernel says.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Pin {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let pin = Pin {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &pin) }.map(drop)
}

/// Puts `inner` into a place of an array of maps.
///
/// # Errors
/// What the kernel says.
pub(super) fn put_map(outer: BorrowedFd<'_>, place: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let mut value = inner.as_raw_fd() as u32;
    let element = Element::new(outer, &place, &raw mut value);
    // SAFETY: key and value have the sizes of the map's and outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.map(drop)
}

/// Empties a place of an array of maps.
///
/// # Errors
/// What the kernel says: ENOENT if it is empty.
pub(super) fn remove_map(outer: BorrowedFd<'_>, place: u32) -> io::Result<()> {
    let element = Element::new(outer, &place, std::ptr::null_mut::<u32>());
    // SAFETY: the key has the size of the map's and outlives the call; no value is looked at.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &element) }.map(drop)
}

/// Looks `key` up in an array.
///
/// # Errors
/// What the kernel says.
///
/// # Safety
/// The buffer is as long as the map's values.
pub(super) unsafe fn look_up_bytes(
    map: BorrowedFd<'_>,
    key: &u32,
    value: &mut [u8],
) -> io::Result<()> {
    let element = Element::new(map, key, value.as_mut_ptr());
    // SAFETY: the key is that of an array, the buffer by the caller; both outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &element) }.map(drop)
}

/// Looks `key` up; no allocation. `None` if it is not there.
///
/// # Safety
/// `K` and `V` have the sizes of the map's keys and values, and any bytes are a `V`.
pub(super) unsafe fn look_up<K, V: Default>(map: BorrowedFd<'_>, key: &K) -> Option<V> {
    let mut value = V::default();
    let element = Element::new(map, key, &raw mut value);
    // SAFETY: by the caller; both outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &element) }.ok()?;
    Some(value)
}
