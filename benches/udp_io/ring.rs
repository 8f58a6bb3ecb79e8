//! Echo server over io_uring, which has no safe wrapper.

#![allow(unsafe_code, reason = "the kernel accesses memory by address; each block states why that is sound")]

use std::{
    collections::VecDeque,
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::libc;

/// Number of receive buffers of the kernel.
const BUFFERS: u16 = 256;
/// Octets of a buffer, including the header and the client's address that the kernel writes first.
const SIZE: usize = 1024;
const RECEIVE: u64 = u64::MAX;
const PROVIDE: u64 = u64::MAX - 1;

/// Memory of a send in progress.
struct Sending {
    header: libc::msghdr,
    iovec: libc::iovec,
}

pub(crate) fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let fd = types::Fd(socket.as_raw_fd());
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .build(u32::from(BUFFERS) * 2)
        .unwrap();
    let mut buffers = vec![0_u8; usize::from(BUFFERS) * SIZE];
    // SAFETY: all zeros are valid values of both.
    let mut sendings: Vec<Sending> = (0..BUFFERS).map(|_| unsafe { std::mem::zeroed() }).collect();
    // SAFETY: all zeros are a valid value.
    let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
    template.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
    let template = Box::new(template);
    let mut queue: VecDeque<squeue::Entry> = VecDeque::new();
    queue.push_back(
        opcode::ProvideBuffers::new(buffers.as_mut_ptr(), SIZE as i32, BUFFERS, 0, 0).build().user_data(PROVIDE),
    );
    queue.push_back(opcode::RecvMsgMulti::new(fd, &*template, 0).build().user_data(RECEIVE));
    let mut done: Vec<cqueue::Entry> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while let Some(entry) = queue.pop_front() {
            // SAFETY: `buffers`, `sendings` and `template` outlive the ring's last use, are not moved, and a buffer belongs
            // to the kernel from its provision to its receipt, and again while its reply is sent.
            while unsafe { ring.submission().push(&entry) }.is_err() {
                ring.submit().unwrap();
            }
        }
        ring.submit_and_wait(1).unwrap();
        done.extend(ring.completion());
        for entry in done.drain(..) {
            match entry.user_data() {
                PROVIDE => {}
                RECEIVE => {
                    if !cqueue::more(entry.flags()) {
                        queue.push_back(opcode::RecvMsgMulti::new(fd, &*template, 0).build().user_data(RECEIVE));
                    }
                    let Some(buffer) = cqueue::buffer_select(entry.flags()).filter(|_| entry.result() > 0) else {
                        continue;
                    };
                    let start = usize::from(buffer) * SIZE;
                    let octets = &buffers[start..start + entry.result() as usize];
                    let message = types::RecvMsgOut::parse(octets, &template).unwrap();
                    let (name, payload) = (message.name_data(), message.payload_data());
                    let name_at = name.as_ptr() as usize - octets.as_ptr() as usize + start;
                    let payload_at = payload.as_ptr() as usize - octets.as_ptr() as usize + start;
                    let (name_len, payload_len) = (name.len(), payload.len());
                    buffers[payload_at + 2] |= 0x80;
                    let sending = &mut sendings[usize::from(buffer)];
                    sending.iovec =
                        libc::iovec { iov_base: (&raw mut buffers[payload_at]).cast(), iov_len: payload_len };
                    sending.header.msg_name = (&raw mut buffers[name_at]).cast();
                    sending.header.msg_namelen = name_len as u32;
                    sending.header.msg_iov = &raw mut sending.iovec;
                    sending.header.msg_iovlen = 1;
                    queue.push_back(
                        opcode::SendMsg::new(fd, &raw const sending.header).build().user_data(u64::from(buffer)),
                    );
                }
                buffer => {
                    let start = &raw mut buffers[buffer as usize * SIZE];
                    queue.push_back(
                        opcode::ProvideBuffers::new(start, SIZE as i32, 1, 0, buffer as u16).build().user_data(PROVIDE),
                    );
                }
            }
        }
    }
}
