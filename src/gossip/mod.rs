//! What nodes tell each other, and how a stranger on the network is kept from having a say in it.
//!
//! [`keyring`] has the keys that a cluster shares, [`seal`] the frames that only their holders can make and read,
//! [`message`] what stands in a frame. All three are values without I/O.

pub mod keyring;
pub mod message;
pub mod seal;
