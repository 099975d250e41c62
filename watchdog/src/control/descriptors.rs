//! Bytes and descriptors over a Unix socket: recvmsg(2) and sendmsg(2) with SCM_RIGHTS. What the kernel has
//! put into our table is owned from then on, also where it put less than was sent.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One that is meant, and one that shows that there are too many. The kernel keeps what does not fit.
const MOST: usize = 2;

/// Room for one control message of [`MOST`] descriptors, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Room([u8; 64]);

// SAFETY: arithmetic alone.
const _: () = assert!(unsafe { libc::CMSG_SPACE((MOST * size_of::<RawFd>()) as u32) } <= 64);

/// What one call brought.
#[derive(Debug)]
pub(super) struct Received {
    /// How many bytes; 0 at the end of the stream.
    pub(super) bytes: usize,
    /// Descriptors, close-on-exec.
    pub(super) descriptors: Vec<OwnedFd>,
    /// More were sent, or our table had no room for them.
    pub(super) truncated: bool,
}

/// Reads what is there, without waiting.
///
/// # Errors
/// `WouldBlock` if nothing is; else whatever recvmsg(2) says.
pub(super) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Received> {
    let mut room = Room([0; 64]);
    let mut part = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    // SAFETY: a msghdr of zeros names no buffer.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = room.0.as_mut_ptr().cast();
    // SAFETY: arithmetic alone.
    message.msg_controllen =
        unsafe { libc::CMSG_SPACE((MOST * size_of::<RawFd>()) as u32) } as usize;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: every buffer that the message names is as long as it says and outlives the call.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    Ok(Received {
        bytes,
        // SAFETY: the kernel has just filled it in.
        descriptors: unsafe { take_descriptors(&message) },
        truncated: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// # Safety
/// `message` is as recvmsg(2) left it, and this is called once for it.
unsafe fn take_descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    // SAFETY: the kernel wrote whole headers, with their lengths, within msg_controllen. Each number in
    // SCM_RIGHTS is a descriptor that it made for us.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let bytes = control.cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(control).cast::<RawFd>();
                taken.extend(
                    (0..bytes / size_of::<RawFd>())
                        .map(|n| OwnedFd::from_raw_fd(data.add(n).read_unaligned())),
                );
            }
            header = libc::CMSG_NXTHDR(message, control);
        }
    }
    taken
}

/// Sends as much of `bytes` as the socket takes without waiting, `descriptor` with the first of them.
///
/// # Errors
/// `WouldBlock` if it takes nothing; else whatever sendmsg(2) says.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let mut room = Room([0; 64]);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: a msghdr of zeros names no buffer; those that are named next are as long as it says and outlive
    // the call, and there is room for one descriptor.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(descriptor.as_raw_fd());
        libc::sendmsg(
            socket.as_raw_fd(),
            &message,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
