//! Wire formats of p2p-sync: the control API ([`v1`]) and what daemons say to each other ([`peer`]), with what client and
//! server must agree on beside it.
//!
//! Which methods only read stands in the `.proto` files, too ([`method`]).
//!
//! The messages are generated from `p2psync/`; domain types are converted to and from them by hand at the edge of the
//! daemon.

pub mod method;
pub mod reason;
pub mod socket_path;

/// The control API, package `p2psync.v1`.
#[allow(
    clippy::all,
    clippy::use_self,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    reason = "generated; which of these fire depends on the generator"
)]
pub mod v1 {
    tonic::include_proto!("p2psync.v1");
}

/// What daemons say to each other, package `p2psync.peer`.
pub mod peer {
    /// Version 1.
    #[allow(
        clippy::all,
        clippy::use_self,
        clippy::semicolon_if_nothing_returned,
        clippy::uninlined_format_args,
        reason = "generated; which of these fire depends on the generator"
    )]
    pub mod v1 {
        tonic::include_proto!("p2psync.peer.v1");
    }
}

/// The encoded descriptors of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/p2psync_descriptor.bin"));
