//! Descriptors known by their numbers, such as those that the process was started with: the only unsafe code of muster.

use std::{
    collections::BTreeSet,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// First descriptor after stdin, stdout and stderr.
const FIRST: RawFd = 3;

/// Descriptors that were adopted. A number must not be adopted twice.
static ADOPTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes ownership of an open descriptor that this process was started with, and keeps child processes from inheriting it.
/// Returns `None` if it is not open or was adopted before.
///
/// To be called at the start of the process, before it opens descriptors of its own, with the numbers that the service
/// manager or the previous image of this process passed.
#[expect(unsafe_code, reason = "the standard library has no safe way to adopt a descriptor")]
pub(crate) fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number < FIRST || !ADOPTED.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return None;
    }
    // SAFETY: the borrow ends in this function. If the number is not open, the system calls below fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).ok()?;
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).ok()?;
    // SAFETY: the descriptor is open. Nothing else owns it: the process was started with it and has opened nothing yet that
    // could have its number, and the set above admits each number once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns a second descriptor of what this number is open for; `None` if it is not open. Child processes do not inherit it.
#[expect(unsafe_code, reason = "the standard library has no safe way to borrow a descriptor by its number")]
pub(crate) fn duplicate(number: RawFd) -> Option<OwnedFd> {
    if number < 0 {
        return None;
    }
    // SAFETY: the borrow ends in this function. If the number is not open, the system call fails with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_dupfd_cloexec(borrowed, FIRST).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    #[test]
    fn descriptor_is_adopted_once_and_not_inherited() {
        let (ours, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let ours = OwnedFd::from(ours);
        fcntl_setfd(&ours, FdFlags::empty()).unwrap();
        let number = ours.into_raw_fd();
        let adopted = adopt(number).unwrap();
        assert_eq!(adopted.as_raw_fd(), number);
        assert!(fcntl_getfd(&adopted).unwrap().contains(FdFlags::CLOEXEC));
        assert!(adopt(number).is_none(), "owned already");
        for number in [-1, 0, 1, 2, 1 << 20] {
            assert!(adopt(number).is_none(), "{number}");
        }
    }

    #[test]
    fn duplicate_is_another_descriptor_of_the_same_socket() {
        let ours = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let again = duplicate(ours.as_raw_fd()).unwrap();
        assert_ne!(again.as_raw_fd(), ours.as_raw_fd());
        assert!(fcntl_getfd(&again).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(std::net::UdpSocket::from(again).local_addr().unwrap(), ours.local_addr().unwrap());
        for number in [-1, 1 << 20] {
            assert!(duplicate(number).is_none(), "{number}");
        }
    }
}
